"""A sweep as the command sees it at its end: its jobs, and how each of them ended."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from romexp.cli.console import print_stderr
from romexp.cli.job_record import JobRecord, read_records
from romexp.cli.sweep_progress import SweepProgress
from romexp.files import write_text
from romexp.redact import without_secrets

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
ONE_WANDB_RUN = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM")
"""Environment variables by which W&B continues one run."""
LOST = 1
"""Exit status of a job that was not run, or whose process ended without reporting."""


class RememberSweep(Callback):
    """A callback of Hydra (`hydra.callbacks` in `conf/config.yaml`) that tells the command which sweep it runs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Set the `HydraConfig` that `current_sweep` reads, which Hydra itself sets only for jobs, and write the plan.

        Variables by which W&B would put every job into one run are removed, before any worker gets them.
        """
        HydraConfig.instance().set_config(config)
        hydra = HydraConfig.get()
        overrides = planned_overrides(hydra)
        progress = SweepProgress(
            folder=Path(hydra.sweep.dir),
            labels=differing(overrides or ()),
            shared=_given(hydra) if overrides is None else _in_all(overrides),
            started=time.time(),
            alone=hydra.launcher._target_.endswith(".BasicLauncher"),
        )
        progress.write()
        if _is_installed(hydra.launcher._target_):
            log.info("%s", progress.header())
        if ignored := [name for name in ONE_WANDB_RUN if os.environ.pop(name, None)]:
            print_stderr(f"{', '.join(ignored)}: ignored in a sweep, where each job has a W&B run of its own")

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remove passwords of URLs from the record of the sweep that Hydra has written."""
        file = Path(config.hydra.sweep.dir) / "multirun.yaml"
        if config.hydra.mode == RunMode.MULTIRUN and file.is_file():
            text = file.read_text(encoding="utf-8")
            if (clean := without_secrets(text)) != text:
                write_text(file, clean)


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """One job of a sweep.

    Attributes:
        number: its place in the sweep, from 0.
        label: those of its overrides in which the sweep's jobs differ.
        record: its record; None if it never began.
    """

    number: int
    label: str
    record: JobRecord | None

    @property
    def exit_status(self) -> int:
        """`JobRecord.exit_status`, or `LOST` if there is none."""
        if self.record is None or self.record.exit_status is None:
            return LOST
        return self.record.exit_status

    @property
    def failure(self) -> str:
        """Why it failed, in one line; empty if it succeeded or was not run."""
        if self.record is None:
            return ""
        if self.record.status == "running":
            process = self.record.process
            if not process.is_here:
                return f"{process.host} has not reported its end; it may still be running there"
            return "its process ended without a word (killed, or out of memory)"
        return self.record.error


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep that has begun.

    Attributes:
        folder: holds the records of its jobs; results are in the folders of the runs.
        overrides: overrides of each job, in order; None for a sweeper other than Hydra's own, which may choose them
            while the sweep runs.
    """

    folder: Path
    overrides: tuple[tuple[str, ...], ...] | None

    def jobs(self) -> tuple[SweepJob, ...]:
        """Every job with its record."""
        records = read_records(self.folder)
        overrides = dict(enumerate(self.overrides or ())) | {n: tuple(r.overrides) for n, r in records.items()}
        labels = differing([overrides[number] for number in sorted(overrides)])
        return tuple(
            SweepJob(number=number, label=label, record=records.get(number))
            for number, label in zip(sorted(overrides), labels, strict=True)
        )

    def wait_for_workers(self, *, grace_s: float) -> None:
        """Wait until no job is running on this machine.

        This is needed for submitit's launcher, which fails when one worker is lost although the others continue.

        Args:
            grace_s: seconds to wait for another job to begin while none is running.
        """
        last = time.monotonic()
        while time.monotonic() - last < grace_s:
            jobs = self.jobs()
            running = [job.record.process for job in jobs if job.record and job.record.status == "running"]
            if any(process.is_here and process.is_alive for process in running):
                last = time.monotonic()
            elif all(job.record for job in jobs):
                return
            time.sleep(LOOK_EVERY_S)


def current_sweep() -> Sweep | None:
    """The sweep that this process has started; None if it runs a single job, or if no sweep has begun."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    hydra = HydraConfig.get()
    return Sweep(folder=Path(hydra.sweep.dir), overrides=planned_overrides(hydra))


def planned_overrides(hydra: Any, *, given: Sequence[str] | None = None) -> tuple[tuple[str, ...], ...] | None:
    """Overrides of each job, as Hydra's own sweeper derives them; None for another sweeper.

    Args:
        hydra: Hydra's own settings.
        given: the overrides on the command line; None takes those that Hydra has noted.
    """
    if not str(hydra.sweeper.get("_target_", "")).endswith("BasicSweeper"):
        return None
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parameters = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides(
        [*parameters, *(hydra.overrides.task if given is None else given)]
    )
    (batch,) = BasicSweeper.split_arguments(overrides, None)
    return tuple(tuple(map(without_secrets, job)) for job in batch)


def differing(jobs: Sequence[Sequence[str]]) -> list[str]:
    """For each job, the overrides that are not equal in all jobs; for a single job, all of its overrides.

    >>> differing([["editor=rome", "seed=0"], ["editor=ft", "seed=0"]])
    ['editor=rome', 'editor=ft']
    """
    pairs: list[Mapping[str, str]] = [{key: value for key, _, value in (o.partition("=") for o in job)} for job in jobs]
    shared = {key for key in pairs[0] if all(job.get(key) == pairs[0][key] for job in pairs)} if pairs else set()
    if len(pairs) == 1:
        shared = set()
    return [" ".join(f"{key}={value}" for key, value in job.items() if key not in shared) for job in pairs]


def _is_installed(target: str) -> bool:
    """Whether the module of this class can be found. Hydra will say so if it cannot."""
    try:
        return importlib.util.find_spec(target.rpartition(".")[0]) is not None
    except ImportError:
        return False


def _in_all(jobs: Sequence[Sequence[str]]) -> list[str]:
    """The overrides that all jobs have in common; none for a single job, whose label has all."""
    return [override for override in jobs[0] if all(override in job for job in jobs)] if len(jobs) > 1 else []


def _given(hydra: Any) -> list[str]:
    """The overrides on the command line that every job gets, whatever the sweeper chooses."""
    parsed = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    return [
        without_secrets(text)
        for text, each in zip(hydra.overrides.task, parsed, strict=True)
        if not each.is_sweep_override()
    ]


def results_root(jobs: Sequence[SweepJob]) -> Path | None:
    """The innermost folder that holds the results of all jobs; None if there are none."""
    folders = [job.record.results for job in jobs if job.record and job.record.results]
    return Path(os.path.commonpath(folders)) if folders else None
