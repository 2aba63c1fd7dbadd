"""`task=sync`: uploads W&B runs that were written offline."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from romexp.bounds import check_bounds
from romexp.cli.job import Job, Outcome
from romexp.cli.progress import bars
from romexp.errors import ConfigError, DataError
from romexp.wandb_settings import has_wandb_key

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "wandb", "sync")
"""W&B's own upload command. It takes folders of runs, and writes `<log>.synced` beside a log that it has sent."""


@dataclass(frozen=True, kw_only=True)
class SyncRuns:
    """Upload every offline run at or below `outputs` (or `output_dir`, where that is given).

    Runs that W&B has marked as sent are skipped, and so are runs into whose folder another romexp process is writing.
    An upload that exceeded the timeout continues at the next call, since W&B stores how much it has sent.

    Attributes:
        timeout: seconds for the upload of one run. W&B itself tries for hours to reach a server that does not answer.
        parallel: number of runs that are sent at the same time.
    """

    timeout: float = 600.0
    parallel: int = 4

    def __post_init__(self) -> None:
        if self.timeout <= 0 or self.parallel < 1:
            raise ConfigError("task: timeout must be positive, parallel at least 1")
        check_bounds(self, "task", finite=("timeout",))

    def __call__(self, job: Job) -> Outcome:
        """Upload the runs. The outcome tells how many were sent now, were sent before, or are still being written.

        A warning is logged for each run that could not be sent.

        Raises:
            ConfigError: the folder does not exist, or there are runs to send but no W&B key.
            DataError: at least one run could not be sent.
        """
        root = job.output_dir or job.outputs
        if not root.is_dir():
            raise ConfigError(f"no folder {root}: name the results by outputs= or output_dir=")
        found = offline_runs(root)
        pending = [run for run in found if not is_synced(run)]
        ready = [run for run in pending if not is_busy(run)]
        if ready and not has_wandb_key():
            raise ConfigError(
                f"no W&B key: run `wandb login` or set WANDB_API_KEY (runs to send below {root}: {len(ready)})"
            )
        failures = self._send(ready)
        lines = [f"W&B runs sent: {len(ready) - failures}; sent before: {len(found) - len(pending)}"]
        if busy := len(pending) - len(ready):
            lines.append(f"still being written, left for later: {busy}")
        if failures:
            log.info("; ".join(lines))
            raise DataError(f"{failures} of {len(ready)} W&B runs were not sent; the same command tries them again")
        return Outcome(lines=lines)

    def _send(self, runs: Sequence[Path]) -> int:
        """Upload the runs; return how many could not be sent."""
        failures = 0
        with bars() as bar, ThreadPoolExecutor(self.parallel) as pool:
            report = bar("W&B runs")
            for done, (run, reason) in enumerate(zip(runs, pool.map(self._send_one, runs), strict=True), start=1):
                report(done, len(runs))
                if reason:
                    log.warning("%s: not sent: %s", run, reason)
                    failures += 1
        return failures

    def _send_one(self, run: Path) -> str:
        """Upload one run; return why it was not sent, or an empty string.

        Success is told by W&B's mark alone, since its exit status is 0 after many kinds of failure.
        """
        # The removed variables would keep W&B offline or silent. Its own logs are written beside the run.
        environment = {k: v for k, v in os.environ.items() if k not in ("WANDB_MODE", "WANDB_SILENT", "WANDB_QUIET")}
        environment["WANDB_DIR"] = str(run.parent.parent.absolute())
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [*COMMAND, str(run)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # one process group, so that its helper process is killed as well
        ) as process:
            try:
                output, _ = process.communicate(timeout=self.timeout)
            except BaseException as error:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    return f"no end after {self.timeout:g} s (task.timeout)"
                raise
        if is_synced(run):
            return ""
        return (
            _last_line(output) or f"wandb sync ended with status {process.returncode} and did not mark the run as sent"
        )


def offline_runs(root: Path) -> list[Path]:
    """Folders of W&B runs that were written offline, sorted by path."""
    found = [*root.rglob("wandb/offline-run-*"), *root.glob("offline-run-*")]
    return sorted({path for path in found if path.is_dir() and any(path.glob("*.wandb"))})


def is_synced(run: Path) -> bool:
    """Whether W&B has marked every log of the run as sent."""
    return all(log_file.with_name(f"{log_file.name}.synced").exists() for log_file in run.glob("*.wandb"))


def is_busy(run: Path) -> bool:
    """Whether a romexp process is writing the run: its result folder is locked or, with $WANDB_DIR, the run itself."""
    return any(_is_locked(folder / ".lock") for folder in (run.parent.parent, run))


def _is_locked(file: Path) -> bool:
    if not file.exists():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _last_line(output: str) -> str:
    """The last line of W&B's output that is not empty, without colour codes and W&B's prefix."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    lines = [line.removeprefix("wandb: ").removeprefix("ERROR ").strip() for line in plain.splitlines()]
    return next((line for line in reversed(lines) if line), "")
