"""Turns an error into one line for the user."""

from __future__ import annotations

import difflib
import re
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from romexp.cli.quoting import quoting_hint
from romexp.errors import RomexpError
from romexp.os_errors import describe
from romexp.redact import without_secrets

MISTAKES = (RomexpError, HydraException, OmegaConfBaseException, PermissionError)
"""Errors that the user can correct. Of others, the traceback is shown, except of those of the operating system."""


def one_line(error: BaseException) -> str:
    """The message of an error, without line breaks and without passwords of URLs.

    If Hydra cannot read an argument, the message says how to quote it. An error of the operating system is worded by
    `romexp.os_errors.describe`. If Hydra has wrapped a `RomexpError`, the
    message is that error's own. If a key does not exist, the message names keys that are spelt similarly.
    """
    return without_secrets(_one_line(error))


def _one_line(error: BaseException) -> str:
    for cause in _chain(error):
        if isinstance(cause, RomexpError):
            return _join_lines(str(cause))
        if hint := quoting_hint(cause):
            return _join_lines(hint)
    if isinstance(error, OSError):
        return _join_lines(describe(error))
    text = str(error)
    for marker in (
        "\nConfig search path:",
        "\n\nSet the environment variable",
        "\nTo append to your config",
        ", set env var",
    ):
        text = text.partition(marker)[0]
    for cause in _chain(error):
        if isinstance(cause, OmegaConfBaseException):
            return _join_lines(text) + _suggest_keys(cause)
    return _join_lines(text)


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _suggest_keys(error: OmegaConfBaseException) -> str:
    parent: Any = getattr(error, "parent_node", None)
    key = getattr(error, "key", None)
    if not isinstance(parent, DictConfig) or not isinstance(key, str) or key in parent:
        return ""
    keys = [str(k) for k in parent if k != "_target_"]
    close = difflib.get_close_matches(key, keys, n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else f" (there are {', '.join(keys)})"


def _join_lines(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text.strip())
