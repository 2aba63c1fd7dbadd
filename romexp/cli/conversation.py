"""A conversation on the terminal: each line that the user types gets an answer, until the user leaves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from rich.console import Console

from romexp.cli.console import run_and_report_errors, screen_width
from romexp.cli.job import Conversation

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
    # No text is read as markup or as emoji codes, since it was written by users and models.
    console = Console(width=screen_width(), markup=False, emoji=False, highlight=False)
    console.print(conversation.greeting)
    while True:
        try:
            line = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if line in LEAVE:
            return
        if line:
            run_and_report_errors(partial(_print_answer, console, conversation, line))


def _print_answer(console: Console, conversation: Conversation, line: str) -> None:
    try:
        for part in conversation.answer(line):
            console.print(part)
    except KeyboardInterrupt:
        console.print("stopped")


def _terminal() -> Callable[[str], str]:
    import readline  # noqa: F401  (gives `input` a history and editing; not needed elsewhere)

    return input
