"""Shows the progress of long loops: as bars with the remaining time on a terminal, else as log lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from romexp.redact import without_secrets

log = logging.getLogger(__name__)

LOG_FIRST_S, LOG_EVERY_S = 10.0, 60.0
"""Seconds to the first line of a loop, and between two later ones."""

Report = Callable[[int, int | None], None]
"""A function that is called with the number of finished items and the number of all items (None if unknown)."""


class Surrounding(Protocol):
    """The sweep that a job is part of (`romexp.cli.sweep_progress.SweepProgress`)."""

    @property
    def total(self) -> int | None: ...

    @property
    def alone(self) -> bool: ...

    def done(self) -> int: ...

    def elapsed(self) -> float: ...

    def left(self, done: int) -> str: ...


@contextmanager
def bars(sweep: Surrounding | None = None) -> Iterator[Callable[[str], Report]]:
    """Yield a function from a label to a `Report`; a bar appears when its `Report` is first called.

    Args:
        sweep: gets a bar of its own above the others. If several of its jobs run at the same time, there are log lines
            instead of bars, since bars of several processes would overwrite each other.
    """
    console = Console(stderr=True)
    if not console.is_terminal or (sweep is not None and not sweep.alone):
        yield lambda label: _Log(label, logging.INFO)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), _Left(), console=console, transient=True) as progress:
        if sweep is not None:
            _add_sweep(progress, sweep)
        yield lambda label: _Bar(progress, label)


def duration(seconds: float) -> str:
    """A duration in the unit that suits it: `45 s`, `12 min` or `3.4 h`."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _add_sweep(progress: Progress, sweep: Surrounding) -> None:
    done = sweep.done()
    left = sweep.left(done).removeprefix(", about ").removesuffix(" left")
    progress.add_task("jobs", total=sweep.total, completed=done, left=left or "?")
    progress.tasks[-1].start_time = progress.get_time() - sweep.elapsed()


class _Left(TimeRemainingColumn):
    """The remaining time; for a task with a field `left`, what that says."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["left"], style="progress.remaining") if "left" in task.fields else super().render(task)


class _Bar:
    """A bar on the terminal. The log file of a run gets the lines that are printed where there is no terminal."""

    def __init__(self, progress: Progress, label: str) -> None:
        self.progress, self.label = progress, label
        self.task: TaskID | None = None
        self.log = _Log(label, logging.DEBUG)

    def __call__(self, done: int, total: int | None) -> None:
        if self.task is None:
            self.task = self.progress.add_task(self.label, total=total)
        self.progress.update(self.task, completed=done, total=total)
        self.log(done, total)


class _Log:
    """Lines in the log, the first after `LOG_FIRST_S` seconds."""

    def __init__(self, label: str, level: int) -> None:
        self.label, self.level = label, level
        self.start = time.monotonic()
        self.next = self.start + LOG_FIRST_S

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + LOG_EVERY_S
        left = f", about {duration((now - self.start) / done * (total - done))} left" if done and total else ""
        log.log(self.level, "%s: %d of %s%s", self.label, done, total or "?", left)


class StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the current `sys.stderr`, so that messages appear above a progress bar (`conf/hydra/job_logging`)."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, without passwords of URLs."""
        return without_secrets(super().format(record))

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        return None
