"""Shows the progress of long loops: as bars with the remaining time on a terminal, else as a log line every minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)

LOG_EVERY_S = 60.0

Report = Callable[[int, int | None], None]
"""A function that is called with the number of finished items and the number of all items (None if unknown)."""


@contextmanager
def bars() -> Iterator[Callable[[str], Report]]:
    """Yield a function from a label to a `Report`; a bar appears when its `Report` is first called."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Log
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as progress:
        yield lambda label: _Bar(progress, label)


class _Bar:
    def __init__(self, progress: Progress, label: str) -> None:
        self.progress, self.label = progress, label
        self.task: TaskID | None = None

    def __call__(self, done: int, total: int | None) -> None:
        if self.task is None:
            self.task = self.progress.add_task(self.label, total=total)
        self.progress.update(self.task, completed=done, total=total)


class _Log:
    def __init__(self, label: str) -> None:
        self.label = label
        self.start = self.last = time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self.last < LOG_EVERY_S:
            return
        self.last = now
        left = f", about {round((now - self.start) / done * (total - done) / 60)} min left" if done and total else ""
        log.info("%s: %d of %s%s", self.label, done, total or "?", left)


class StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the current `sys.stderr`, so that messages appear above a progress bar (`conf/hydra/job_logging`)."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        return None
