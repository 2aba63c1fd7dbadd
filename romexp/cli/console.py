"""What the user sees in the terminal: outcomes on stdout, messages on stderr, and each error in one line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.measure import Measurement

from romexp.cli.error_messages import MISTAKES, one_line
from romexp.cli.job import Outcome
from romexp.cli.job_record import INTERRUPTED
from romexp.errors import FileError
from romexp.os_errors import describe

USER_MISTAKE, FAULT = 2, 1
"""Exit statuses."""


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
            traceback.print_exc()
        print_stderr(f"error: {one_line(error)}")
        return ExitResult(status=USER_MISTAKE, error=one_line(error))
    except KeyboardInterrupt:
        print_stderr("interrupted; run the same command again to continue after the finished cases")
        return ExitResult(status=INTERRUPTED, error="interrupted")
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {one_line(error)}"
        return ExitResult(status=FAULT, error=reason, traceback=traceback.format_exc())
    return ExitResult(status=0)


def print_stderr(message: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"romexp: {message}\n")


def print_outcome(outcome: Outcome) -> None:
    """Print a task's outcome on stdout. Tables get their full width, even if they are wider than the screen.

    Raises:
        FileError: it cannot be written, as with stdout redirected to a file on a full disk.
    """
    console = Console()
    try:
        for table in outcome.tables:
            width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
            Console(width=max(width, console.width), highlight=False).print(table, crop=False)
        for line in outcome.lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):  # Python would fail once more when it ends and writes the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise FileError(f"cannot write to standard output: {describe(error).partition(':')[0]}") from error
