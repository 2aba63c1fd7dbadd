"""Configuration values against the classes they are for, before anything is built: names and types."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, get_type_hints

from hydra.utils import get_object
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from romexp.errors import ConfigError

SHARED: Mapping[str, Any] = {
    "seed": int,
    "output_dir": str | None,
    "outputs": str,
    "cache_dir": str | None,
    "study": str | None,
    "save_deltas": bool,
    "debug": bool,
    "table": int | str | None,
    "page": bool,
    "wandb": bool,
    "answers": str | None,
}
"""Types of the settings at the top level of `conf/config.yaml`."""


def validate_config(config: Mapping[str, Any], *, where: str = "") -> None:
    """Look at every node with a `_target_` that is a dataclass.

    Args:
        config: plain values, resolved.
        where: dotted name of this node.

    Raises:
        ConfigError: a key that the class does not have, or a value that is not of the field's type.
    """
    known = _field_types(config["_target_"]) if "_target_" in config else None
    if not where:
        for key, hint in SHARED.items():
            _check_value(key, config.get(key), hint)
    for key, value in config.items():
        name = f"{where}.{key}" if where else str(key)
        if known is not None and key != "_target_":
            _check_field(name, key, value, known)
        if isinstance(value, Mapping):
            validate_config(value, where=name)


def _check_field(name: str, key: str, value: Any, known: Mapping[str, Any]) -> None:
    if key not in known:
        close = difflib.get_close_matches(key, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
        raise ConfigError(f"{name}: no such setting ({hint})")
    if not (isinstance(value, Mapping) and "_target_" in value):
        _check_value(name, value, known[key])


def _check_value(name: str, value: Any, hint: Any) -> None:
    try:
        adapter = _adapter(hint)
        if adapter is not None:
            adapter.validate_python(value)
    except ValidationError as error:
        reasons = dict.fromkeys(problem["msg"].removeprefix("Input should be ") for problem in error.errors())
        raise ConfigError(f"{name}: expected {' or '.join(reasons)}, not {value!r}") from error


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    """What checks a type; None for protocols and classes, whose values are nodes of their own."""
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=False))
    except (PydanticUserError, TypeError):
        return None


def _field_types(target: str) -> dict[str, Any] | None:
    """Types of a dataclass' fields by name; None where the target is something else (a function)."""
    cls = get_object(target)
    if not dataclasses.is_dataclass(cls):
        return None
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}
