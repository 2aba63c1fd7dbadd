"""Removes passwords and tokens from URLs, before a text is shown, logged or stored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

HIDDEN = "***"
"""What stands in the place of a token."""

_USER = re.compile(
    r"(\b[A-Za-z][\w+.-]*://)"
    # A password may hold an unescaped slash, but `host:80/a@b` has none: there a port stands after the colon.
    r"(?:[^\s/?#@'\"<>:]*:(?!\d+(?:[/?#]|$))[^\s@'\"<>]*@(?:[^\s/?#@'\"<>]*@)*|[^\s/?#'\"<>]*@)"
)
"""User name and password: what stands before the last @ of a URL's host."""

_QUERY = re.compile(r"[?#][^\s'\"<>]+")
_SECRET_WORDS = "token|key|sig|secret|pass|pwd|auth|cred|session|jwt|policy|sas|code|hash|ticket"
_PARAMETER = re.compile(rf"(?i)(?<=[?&;#])([\w.%$~\[\]-]*(?:{_SECRET_WORDS})[\w.%$~\[\]-]*=)[^&;#)\]}}]+")
"""A parameter whose name says that its value opens something: `token=…`, `X-Amz-Signature=…`."""

_VARIABLE = re.compile(r"(?s)^([+~]*hydra\.job\.env_set[^=]*=).+")
"""An argument that has Hydra set environment variables, among which tokens are."""


def without_secrets(text: str) -> str:
    """The text with its URLs cleaned: user names and passwords are removed, values of tokens are replaced by `***`.

    >>> without_secrets("cannot read https://me:secret@example.org/a.json?part=2&token=abc (404)")
    'cannot read https://example.org/a.json?part=2&token=*** (404)'
    """
    if "://" in text:
        text = _USER.sub(r"\g<1>", text)
    return _QUERY.sub(lambda query: _PARAMETER.sub(rf"\g<1>{HIDDEN}", query[0]), text)


def command_without_secrets(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, each cleaned by `without_secrets`, without the values of environment variables that
    Hydra is to set.

    >>> command_without_secrets(["hydra.job.env_set.HF_TOKEN=hf_abc", "seed=1"])
    ['hydra.job.env_set.HF_TOKEN=***', 'seed=1']
    """
    return [_VARIABLE.sub(rf"\g<1>{HIDDEN}", without_secrets(argument)) for argument in arguments]


def without_secrets_in(value: Any) -> Any:
    """JSON values with every text cleaned by `without_secrets`. Mappings become dicts, and sequences lists."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: without_secrets_in(inner) for key, inner in value.items()}
    if isinstance(value, (Sequence, Set)) and not isinstance(value, (bytes, bytearray)):
        return [without_secrets_in(inner) for inner in value]
    return value
