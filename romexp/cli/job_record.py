"""Records how each job of a sweep ended, in one file for each job. Launchers report the first failure at most."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from romexp.cli.workers import Process
from romexp.files import read_json, write_text
from romexp.redact import without_secrets_in
from romexp.results.environment import now

log = logging.getLogger(__name__)

Status = Literal["running", "done", "failed", "interrupted"]
INTERRUPTED = 130
"""Exit status of a job that was interrupted from the keyboard."""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One job of a sweep: `<sweep folder>/jobs/<number>.json`, written when it begins and again when it ends.

    Attributes:
        number: its place in the sweep, from 0.
        overrides: its arguments on the command line.
        process: the process that runs it.
        started: start time, UTC, ISO 8601.
        status: a process that is killed leaves `running`.
        exit_status: 0, 1 for a fault of the program, 2 for a mistake of the user, 130 when interrupted; None if the job
            has not ended.
        error: the error in one line; empty if there was none.
        traceback: the traceback of a fault of the program; empty otherwise.
        results: the result folder; empty if the job has none.
        seconds: its duration.
        cases_left: what is left of it, if it was only planned (`dry_run`).
        seconds_left: at most about how long that will take; None if it is not known.
    """

    number: int
    overrides: Sequence[str]
    process: Process
    started: str
    status: Status = "running"
    exit_status: int | None = None
    error: str = ""
    traceback: str = ""
    results: str = ""
    seconds: float | None = None
    cases_left: int | None = None
    seconds_left: float | None = None

    def write(self, sweep_dir: Path) -> None:
        """Write the record to its file, atomically, without passwords of URLs."""
        text = json.dumps(without_secrets_in(asdict(self)), indent=1, ensure_ascii=False)
        write_text(_folder(sweep_dir) / f"{self.number}.json", text + "\n")

    @classmethod
    def begun(cls, *, number: int, overrides: Sequence[str]) -> JobRecord:
        """The record of a job that begins now, in this process."""
        return cls(number=number, overrides=overrides, process=Process.this(), started=now())

    def ended(self, *, exit_status: int, error: str, traceback: str, results: str, seconds: float) -> JobRecord:
        """The record of the same job at its end."""
        status: Status = "done" if exit_status == 0 else "interrupted" if exit_status == INTERRUPTED else "failed"
        return replace(
            self,
            status=status,
            exit_status=exit_status,
            error=error,
            traceback=traceback,
            results=results,
            seconds=round(seconds, 3),
        )


def read_records(sweep_dir: Path) -> dict[int, JobRecord]:
    """The records of a sweep by job number; empty if no job has begun. A damaged file counts as missing."""
    found = [record for file in _folder(sweep_dir).glob("*.json") if (record := _read(file)) is not None]
    return {record.number: record for record in sorted(found, key=lambda record: record.number)}


def _read(file: Path) -> JobRecord | None:
    try:
        entry = read_json(file)
        record = JobRecord(**entry | {"process": Process(**entry["process"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s: not the record of a job (%s)", file, error)
        return None
    return record if type(record.number) is int else None


def _folder(sweep_dir: Path) -> Path:
    return sweep_dir / "jobs"
