"""Says how a text is quoted, where Hydra cannot read a value of the command line."""

from __future__ import annotations

import re
import shlex

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException

EXPECTED = "expected setting=value, for example dataset.limit=10"


def quoting_hint(error: BaseException) -> str:
    """What to write instead of an argument that Hydra cannot read; empty for any other error."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, error.message)
    argument = re.match(r"Ambiguous value for argument '(.*)'$", str(error).partition("\n")[0])
    if isinstance(error, HydraException) and argument:
        key, _, value = argument[1].partition("=")
        return (
            f"{key}: a comma separates values; for one text with a comma write {quoted(key, value)}, for a list "
            f"{shlex.quote(f'{key}=[{value}]')}, for one job for each value add -m"
        )
    return ""


def quoted(key: str, text: str) -> str:
    """The argument that gives a setting this text, quoted for Hydra and for a POSIX shell.

    >>> print(quoted("prompt", "The Space Needle, in"))
    "prompt='The Space Needle, in'"
    """
    argument = f"{key}={QuotedString(text=text, quote=Quote.single).with_quotes()}"
    if re.search(r"[!$`]", argument):  # which mean something within double quotes
        return shlex.quote(argument)
    return '"' + re.sub(r'("|\\(?=["\\]))', r"\\\1", argument) + '"'


def _unreadable(argument: str, message: str) -> str:
    key, sign, text = argument.partition("=")
    if not sign or not re.fullmatch(r"[+~]*[\w@/.:-]+", key):
        return f"{argument}: {EXPECTED}"
    # A text that the user has quoted already, as in prompt='It's', is shown without these marks.
    inner = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    hint = f"to give {key} this text, quote it twice, for Hydra and for the shell: {quoted(key, inner)}"
    if text[:1] in ("[", "{"):
        why = re.sub(r"\s+", " ", message.partition("\nSee https")[0]).strip()
        return f"{key}: {text} is no list or mapping that Hydra can read ({why}); {hint}"
    return f"{key}: Hydra cannot read {text}; {hint}"
