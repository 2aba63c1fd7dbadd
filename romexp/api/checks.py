"""Checks of what callers pass to the functions of the face, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel

Part = TypeVar("Part")


def model(value: object) -> LanguageModel:
    """A model that was loaded.

    Raises:
        ConfigError: another type.
    """
    if not isinstance(value, LanguageModel):
        raise ConfigError(f"lm: expected a model of romexp.load, got {type(value).__name__}")
    return value


def text(value: object, name: str) -> str:
    """A text with something in it.

    Raises:
        ConfigError: another type, or nothing but white space.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name}: expected a text, got {type(value).__name__}")
    if not value.strip():
        raise ConfigError(f"{name} is empty")
    return value


def template(value: object, name: str) -> str:
    """A prompt with exactly one `{}` for the subject.

    Raises:
        ConfigError: no text, or another number of `{}`.
    """
    prompt = text(value, name)
    if (count := prompt.count("{}")) != 1:
        raise ConfigError(f"{name}: expected exactly one {{}} for the subject, found {count} in {prompt!r}")
    return prompt


def texts(value: object, name: str) -> list[str]:
    """One text or several, as a list.

    Raises:
        ConfigError: another type, an empty list, or a text that is empty.
    """
    if isinstance(value, str):
        return [text(value, name)]
    if not isinstance(value, Sequence) or not value:
        raise ConfigError(f"{name}: expected a text or a list of texts, got {type(value).__name__}")
    return [text(item, f"{name}[{i}]") for i, item in enumerate(value)]


def with_settings(value: Part, settings: Mapping[str, Any], name: str) -> Part:
    """A configured object with some of its fields changed.

    Raises:
        ConfigError: it has no such field.
    """
    known = [field.name for field in fields(value) if field.init]  # type: ignore[arg-type]
    if unknown := [key for key in settings if key not in known]:
        raise ConfigError(f"{name}: there is no setting {unknown[0]!r} (there are {', '.join(known)})")
    return replace(value, **dict(settings))  # type: ignore[type-var]


def at_least(value: object, least: int, name: str) -> int:
    """A whole number that is not too small.

    Raises:
        ConfigError: another type, or a smaller number.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return value
