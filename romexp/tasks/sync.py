"""`task=sync`: send W&B runs that were written offline, each once."""

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

from romexp.cli.job import Job, Outcome
from romexp.cli.progress import bars
from romexp.errors import ConfigError, DataError
from romexp.tracking import has_wandb_key

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "wandb", "sync")
"""W&B's own upload. It wants the runs' folders by name, and puts `.synced` beside a log that it has sent whole."""


@dataclass(frozen=True, kw_only=True)
class SyncRuns:
    """Upload every offline run at or below `outputs` (or `output_dir`, where that is given).

    A run that W&B has marked as sent is skipped, and so is one whose folder another romexp process is writing into. One
    that was cut short by a timeout goes on from there next time, since W&B keeps account beside the log.

    Attributes:
        timeout: seconds for one run. W&B itself tries for hours to reach a server that does not answer.
        parallel: runs sent at the same time.
    """

    timeout: float = 600.0
    parallel: int = 4

    def __post_init__(self) -> None:
        if self.timeout <= 0 or self.parallel < 1:
            raise ConfigError("task: timeout must be positive, parallel at least 1")

    def __call__(self, job: Job) -> Outcome:
        """Says how many were sent, were sent before, or are being written; a line for each that could not be sent.

        Raises:
            ConfigError: no such folder, or runs to send and no W&B key.
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
        """How many could not be sent."""
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
        """Empty if the run was sent, else why not. Only W&B's mark counts: its exit status is 0 after many failures."""
        # Without what keeps W&B from talking to the server or to us; its own logs go where the run lies.
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
            start_new_session=True,  # so that its helper process ends with it
        ) as process:
            try:
                said, _ = process.communicate(timeout=self.timeout)
            except BaseException as error:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    return f"no end after {self.timeout:g} s (task.timeout)"
                raise
        if is_synced(run):
            return ""
        return _last_words(said) or f"wandb sync ended with status {process.returncode} and no mark that it was sent"


def offline_runs(root: Path) -> list[Path]:
    """Folders of W&B runs that were written offline, in order of path."""
    found = [*root.rglob("wandb/offline-run-*"), *root.glob("offline-run-*")]
    return sorted({path for path in found if path.is_dir() and any(path.glob("*.wandb"))})


def is_synced(run: Path) -> bool:
    """Whether W&B has marked every log of the run as sent."""
    return all(log_file.with_name(f"{log_file.name}.synced").exists() for log_file in run.glob("*.wandb"))


def is_busy(run: Path) -> bool:
    """Whether a romexp process is at the result folder in which the run lies."""
    file = run.parent.parent / ".lock"
    if not file.exists():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _last_words(said: str) -> str:
    """The last line that W&B printed, without colours and its name."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    lines = [line.removeprefix("wandb: ").removeprefix("ERROR ").strip() for line in plain.splitlines()]
    return next((line for line in reversed(lines) if line), "")
