"""What the user sees in the terminal: outcomes on stdout, messages on stderr, and each error in one line."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from romexp.cli.error_messages import MISTAKES, one_line
from romexp.cli.job import Outcome
from romexp.cli.job_record import INTERRUPTED
from romexp.errors import FileError
from romexp.os_errors import describe
from romexp.redact import without_secrets
from romexp.reporting.terminal import visible

log = logging.getLogger(__name__)

USER_MISTAKE, FAULT = 2, 1
"""Exit statuses."""

NO_SCREEN_WIDTH = 100
"""Characters in a line where no terminal says it."""


@dataclass(frozen=True, kw_only=True)
class ExitResult:
    """How a call ended.

    Attributes:
        status: exit status.
        error: the error in one line; empty if there was none.
        traceback: the traceback of a fault of the program; empty otherwise.
    """

    status: int
    error: str = ""
    traceback: str = ""


def run_and_report_errors(call: Callable[[], Any], *, debug: bool = False) -> ExitResult:
    """Run `call`, and turn an exception into a message on stderr and an exit status.

    Args:
        debug: show the traceback of a user's mistake too, as ROMEXP_TRACEBACK=1 does.
    """
    debug = debug or os.environ.get("ROMEXP_TRACEBACK") == "1"
    try:
        call()
    except (*MISTAKES, OSError) as error:
        if debug:
            sys.stderr.write(without_secrets(traceback.format_exc()))
        print_stderr(f"error: {one_line(error)}")
        return ExitResult(status=USER_MISTAKE, error=one_line(error))
    except KeyboardInterrupt:
        print_stderr("interrupted; run the same command again to continue after the finished cases")
        return ExitResult(status=INTERRUPTED, error="interrupted")
    except Exception as error:
        trace = without_secrets(traceback.format_exc())
        sys.stderr.write(trace)
        return ExitResult(status=FAULT, error=f"{type(error).__name__}: {one_line(error)}", traceback=trace)
    return ExitResult(status=0)


@contextmanager
def announced(message: str, *, after_s: float) -> Iterator[None]:
    """Log a line if the context lasts longer than this many seconds."""
    timer = threading.Timer(after_s, log.info, ["%s", message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def print_stderr(message: str) -> None:
    """Write a line to stderr, without passwords of URLs."""
    sys.stderr.write(f"romexp: {visible(without_secrets(message))}\n")


def screen_width() -> int:
    """The width of the terminal, also where the output goes through a pipe, or $COLUMNS; without a terminal 100."""
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns) > 0:
        return int(columns)
    for stream in (1, 2, 0):
        try:
            if width := os.get_terminal_size(stream).columns:
                return width
        except OSError:
            continue
    return NO_SCREEN_WIDTH


def print_outcome(outcome: Outcome) -> None:
    """Print a task's outcome on stdout. Tables fit the width of the screen (`romexp.reporting.tables.fitting`).

    Raises:
        FileError: it cannot be written, as with stdout redirected to a file on a full disk.
    """
    # No text is read as markup or as emoji codes, since much of it was written by users and models.
    console = Console(width=screen_width(), markup=False, emoji=False, highlight=False)
    try:
        for table in outcome.tables:
            console.print(table)
        for line in outcome.lines:
            console.print(visible(line), soft_wrap=True)
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):  # Python would fail once more when it ends and writes the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise FileError(f"cannot write to standard output: {describe(error).partition(':')[0]}") from error
