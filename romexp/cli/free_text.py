"""Texts on the command line: they are taken as they are, although Hydra has a grammar for values."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

TEXTS = ("prompt", "subject", "target")
"""Settings whose values are texts."""


def quote_texts(arguments: Sequence[str], *, sweep: bool) -> list[str]:
    """Quote the values of `TEXTS` for Hydra, so that `prompt="The {} is in"` needs no quotes beside the shell's.

    A value that is quoted already, `null` and an interpolation stay as they are.

    Args:
        arguments: what stands on the command line.
        sweep: whether it is a sweep. There several values, as in `target=harp,cello`, stay several.
    """
    return [_quoted(argument, sweep=sweep) for argument in arguments]


def _quoted(argument: str, *, sweep: bool) -> str:
    name, sign, value = argument.partition("=")
    if not sign or name not in TEXTS or value in ("", "null") or re.match(r"""\s*(['"]|\$\{)""", value):
        return argument
    if sweep and _is_swept(argument):
        return argument
    return f"{name}={QuotedString(text=value, quote=Quote.double).with_quotes()}"


def _is_swept(argument: str) -> bool:
    """Whether Hydra can read the argument, as several values."""
    try:
        return bool(OverridesParser.create().parse_override(argument).is_sweep_override())
    except HydraException:
        return False
