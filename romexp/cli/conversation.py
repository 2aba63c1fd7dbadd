"""A conversation on the terminal: each line that the user types gets an answer, until the user leaves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from rich.console import Console, RenderableType

from romexp.cli.console import run_and_report_errors
from romexp.cli.job import Conversation
from romexp.cli.job_record import INTERRUPTED

LEAVE = (":quit", ":q", ":exit")


def on_terminal() -> bool:
    """Whether somebody can type and read: both standard input and standard output are terminals."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def converse(conversation: Conversation, *, read: Callable[[str], str] | None = None) -> None:
    """Answer line by line until the user types `:quit` or ends the input.

    Ctrl-C stops an answer, and at an empty prompt the conversation.

    Args:
        read: reads a line behind a prompt, and raises EOFError at the end; None reads from the terminal, with history.
    """
    read = read or _terminal()
    console = Console(highlight=False)
    console.print(conversation.greeting, markup=False)
    while True:
        try:
            line = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if line in LEAVE:
            return
        if line:
            result = run_and_report_errors(lambda line=line: _print(console, conversation.answer(line)))  # type: ignore[misc]
            if result.status == INTERRUPTED:
                continue


def _print(console: Console, parts: Iterable[RenderableType]) -> None:
    for part in parts:
        console.print(part, markup=False)


def _terminal() -> Callable[[str], str]:
    import readline  # noqa: F401  (gives `input` a history and editing; not needed elsewhere)

    return input
