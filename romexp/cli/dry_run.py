"""`dry_run=true`: what a job would do, in place of doing it."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from romexp.cli.job import Job, Outcome, Task


@runtime_checkable
class Planned(Protocol):
    """A task that can say what it would do, from a few measured cases."""

    def plan(self, job: Job) -> Outcome:
        """What the task would do. It writes no result.

        Raises:
            RomexpError: the input is invalid.
        """
        ...


def plan_of(task: Task, job: Job) -> Outcome:
    """What a job would do: the parts that it is built of, and for a `Planned` task what that says itself."""
    parts = [f"{name}={option}" for name, option in job.choices.items() if hasattr(task, name)]
    lines = [" ".join(["would run:", f"task={job.choices['task']}", *parts])]
    if isinstance(task, Planned):
        planned = task.plan(job)
        return replace(planned, lines=[*lines, *planned.lines])
    return Outcome(lines=[*lines, f"no estimate: task={job.choices['task']} has no cases to measure"])
