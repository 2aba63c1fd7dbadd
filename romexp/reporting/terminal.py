"""Text for the terminal as it is: what users and models wrote is never markup, and no control sequence reaches it."""

from __future__ import annotations

from rich.text import Text


def literal(text: str, *, style: str = "") -> Text:
    """The text, not read as markup or emoji codes. Control characters, as of colour sequences, are shown escaped."""
    return Text(visible(text), style=style)


def visible(text: str) -> str:
    r"""The text with its control characters written as escapes, except line breaks.

    >>> visible("\x1b[31mred")
    '\\x1b[31mred'
    """
    return "".join(c if c == "\n" or not _is_control(c) else f"\\x{ord(c):02x}" for c in text)


def _is_control(character: str) -> bool:
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0
