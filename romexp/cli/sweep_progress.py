"""How far a sweep is: its plan, which every job reads, and the line that each job prints when it begins and ends."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from romexp.cli.job_record import read_records
from romexp.cli.progress import duration
from romexp.files import write_text

_FILE = "plan.json"


@dataclass(frozen=True, kw_only=True)
class SweepProgress:
    """The plan of a sweep: `<sweep folder>/plan.json`, written before the first job. Workers read it as well.

    Attributes:
        folder: folder of the sweep's records.
        labels: for each job, those of its overrides in which the jobs differ; empty if the sweeper chooses them later.
        shared: the overrides that all jobs have.
        started: when the sweep began, in seconds since 1970.
        alone: whether only one job runs at a time, so that it may draw bars on the terminal.
    """

    folder: Path
    labels: Sequence[str] = ()
    shared: Sequence[str] = ()
    started: float
    alone: bool = True

    def write(self) -> None:
        """Write the plan to its file."""
        plan = asdict(self) | {"folder": str(self.folder)}
        write_text(self.folder / _FILE, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> SweepProgress:
        """The plan in this folder; an empty one that begins now if there is none."""
        try:
            plan = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            return cls(**plan | {"folder": folder})
        except (OSError, ValueError, TypeError):
            return cls(folder=folder, started=time.time())

    @property
    def total(self) -> int | None:
        """The number of jobs; None if it is not known."""
        return len(self.labels) or None

    def header(self) -> str:
        """What is printed before the first job."""
        jobs = f"{len(self.labels)} job{'s' * (len(self.labels) != 1)}" if self.labels else "sweep"
        return f"{jobs}, each with {' '.join(self.shared)}" if self.shared else jobs

    def name(self, number: int, *, fallback: str = "") -> str:
        """What a job is called, as in `job 3 of 12 (editor=ft editor.layer=2)`.

        Args:
            number: its place in the sweep, from 0.
            fallback: its overrides, which are shown if there is no plan.
        """
        label = self.labels[number] if number < len(self.labels) else fallback
        of = f" of {self.total}" if self.total else ""
        return f"job {number + 1}{of}" + (f" ({label})" if label else "")

    def done(self) -> int:
        """The number of jobs that have ended, by whatever process."""
        return sum(record.status != "running" for record in read_records(self.folder).values())

    def elapsed(self) -> float:
        """Seconds since the sweep began."""
        return max(0.0, time.time() - self.started)

    def left(self, done: int) -> str:
        """The remaining time if the jobs to come take as long as those that have ended, as in `, about 40 s left`."""
        if not self.total or not done or done >= self.total:
            return ""
        return f", about {duration(self.elapsed() / done * (self.total - done))} left"
