"""A sweep as the command sees it when it is over: which jobs there were, what became of each, what it ends with."""

from __future__ import annotations

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

from romexp.cli.job_record import JobRecord, read_records

LOOK_EVERY_S = 0.5
LOST = 1
"""Exit status of a job whose process ended without a word, and of one that was not run."""


class RememberSweep(Callback):
    """Hydra's callback (`hydra.callbacks` in `conf/config.yaml`) by which the command learns what sweep it runs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra sets this in workers only; the command reads it in `current_sweep`."""
        HydraConfig.instance().set_config(config)


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """One job of a sweep.

    Attributes:
        number: its place, from 0.
        label: the overrides in which the sweep's jobs differ.
        record: what it left; None if it never began.
    """

    number: int
    label: str
    record: JobRecord | None

    @property
    def exit_status(self) -> int:
        """0, or what `JobRecord.exit_status` says, or `LOST`."""
        if self.record is None or self.record.exit_status is None:
            return LOST
        return self.record.exit_status

    @property
    def failure(self) -> str:
        """Why it failed, in one line; empty if it did not, or was not run."""
        if self.record is None:
            return ""
        if self.record.status == "running":
            process = self.record.process
            if not process.is_here:
                return f"no word of its end from {process.host}, where it may still be at work"
            return "its process ended without a word (killed, or out of memory)"
        return self.record.error


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep that has begun.

    Attributes:
        folder: where its record lies; results lie with the runs.
        overrides: of each job, in order; None if another sweeper than Hydra's own makes them up as it goes.
    """

    folder: Path
    overrides: tuple[tuple[str, ...], ...] | None

    def jobs(self) -> tuple[SweepJob, ...]:
        """Every job with what it left."""
        records = read_records(self.folder)
        overrides = dict(enumerate(self.overrides or ())) | {n: tuple(r.overrides) for n, r in records.items()}
        labels = differing([overrides[number] for number in sorted(overrides)])
        return tuple(
            SweepJob(number=number, label=label, record=records.get(number))
            for number, label in zip(sorted(overrides), labels, strict=True)
        )

    def wait_for_workers(self, *, grace_s: float) -> None:
        """Wait until no job is at work on this machine.

        For a launcher that gave up because of one lost worker while others go on (submitit's).

        Args:
            grace_s: how long to wait for the next to begin.
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
    """The sweep that this process has started; None if it did not get so far, or runs a single job."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    hydra = HydraConfig.get()
    return Sweep(folder=Path(hydra.sweep.dir), overrides=_planned(hydra))


def _planned(hydra: Any) -> tuple[tuple[str, ...], ...] | None:
    """The jobs that Hydra's own sweeper makes of its parameters and the command line; None for another sweeper."""
    if not str(hydra.sweeper.get("_target_", "")).endswith("BasicSweeper"):
        return None
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    written = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*written, *hydra.overrides.task])
    (batch,) = BasicSweeper.split_arguments(overrides, None)
    return tuple(tuple(job) for job in batch)


def differing(jobs: Sequence[Sequence[str]]) -> list[str]:
    """For each job the overrides that are not the same in all of them; all of its overrides if it is the only one.

    >>> differing([["editor=rome", "seed=0"], ["editor=ft", "seed=0"]])
    ['editor=rome', 'editor=ft']
    """
    pairs: list[Mapping[str, str]] = [{key: value for key, _, value in (o.partition("=") for o in job)} for job in jobs]
    everywhere = {key for key in pairs[0] if all(job.get(key) == pairs[0][key] for job in pairs)} if pairs else set()
    if len(pairs) == 1:
        everywhere = set()
    return [" ".join(f"{key}={value}" for key, value in job.items() if key not in everywhere) for job in pairs]


def results_root(jobs: Sequence[SweepJob]) -> Path | None:
    """The innermost folder that holds the results of all jobs; None if there are none."""
    folders = [job.record.results for job in jobs if job.record and job.record.results]
    return Path(os.path.commonpath(folders)) if folders else None
