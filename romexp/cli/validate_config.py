"""Checks configuration values against the classes that they are for, before any object is built, and then builds the
objects from the checked values.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import pkgutil
from collections.abc import Collection, Mapping
from functools import cache, partial
from typing import Any, get_type_hints

from romexp.cli.field_values import WrongType, as_type, is_part
from romexp.errors import ConfigError

SHARED: Mapping[str, Any] = {
    "seed": int,
    "output_dir": str | None,
    "outputs": str,
    "cache_dir": str | None,
    "study": str | None,
    "tags": tuple[str, ...],
    "threads": int | None,
    "traceback": bool,
    "dry_run": bool,
    "objective": str | tuple[str, ...] | None,
}
"""Types of the top-level settings in `conf/config.yaml` that every task reads. Another setting has the type of the
task's field that it is for.
"""


def validate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check a whole configuration.

    Args:
        config: plain values, resolved. `task` holds its parts too, which also stand at the top level.

    Returns:
        the values that the objects will hold, in the places where they stood.

    Raises:
        ConfigError: a class has no such field or lacks one, or a value is not of its field's type.
    """
    checked = {
        key: as_field(value, SHARED[key], key) if key in SHARED else validate_part(value, where=key)
        for key, value in config.items()
        if key != "task"
    }
    task = config["task"]
    if not is_part(task):
        raise ConfigError(f"task: expected an object (a mapping with `_target_`), not {task!r}")
    # A message names what the task takes from the top level as the user does.
    taken = {key for key in task if key in checked and repr(task[key]) == repr(config[key])}
    fields = validate_part({**task, **{key: checked[key] for key in taken}}, where="task", at_top=taken)
    return checked | {key: fields[key] for key in taken} | {"task": fields}


def validate_part(value: Any, *, where: str, at_top: Collection[str] = ()) -> Any:
    """Check a part of a configuration, at any depth.

    Args:
        value: a plain value, resolved.
        where: its dotted name.
        at_top: keys whose name in messages is not below `where`.

    Raises:
        ConfigError: see `validate_config`.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(validate_part(item, where=f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: expected a finite number, not {value!r}")
    if not isinstance(value, Mapping):
        return value
    known = _field_types(value["_target_"], where=where) if is_part(value) else None
    checked = {}
    for key, item in value.items():
        name = str(key) if key in at_top else f"{where}.{key}"
        if known is None or key == "_target_":
            checked[key] = validate_part(item, where=name)
        elif key in known:
            checked[key] = as_field(item, known[key], name)
        else:
            close = difflib.get_close_matches(key, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
            raise ConfigError(f"{name}: no such setting ({hint})")
    if missing := [key for key in _required(value) if key not in value] if known is not None else ():
        raise ConfigError(f"{where}.{missing[0]} must be given")
    return checked


def as_field(value: Any, hint: Any, name: str) -> Any:
    """What a field of this type holds.

    Raises:
        ConfigError: the value is not of this type.
    """
    try:
        return as_type(value, hint, part=partial(validate_part, where=name))
    except WrongType as wrong:
        raise ConfigError(f"{name}: expected {wrong}, not {value!r}") from wrong


def build(value: Any, *, where: str) -> Any:
    """Build every object that checked values configure. It holds exactly these values.

    A `_target_` that is not a dataclass is called by Hydra, for example a function that returns a path.

    Args:
        value: what `validate_config` or `validate_part` returned.
        where: its dotted name.

    Raises:
        ConfigError: a class refuses a value.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(build(item, where=f"{where}[{i}]") for i, item in enumerate(value))
    if not isinstance(value, Mapping):
        return value
    if not is_part(value):
        return {key: build(item, where=f"{where}.{key}") for key, item in value.items()}
    cls = _target(value["_target_"], where=where)
    if not dataclasses.is_dataclass(cls):
        from hydra.utils import instantiate

        return instantiate(dict(value), _convert_="all")
    fields = {key: build(item, where=f"{where}.{key}") for key, item in value.items() if key != "_target_"}
    try:
        return cls(**fields)  # type: ignore[operator]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _target(name: Any, *, where: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"{where}._target_: cannot import {name!r}: {error}") from error


def _field_types(target: Any, *, where: str) -> dict[str, Any] | None:
    """Type of each field of a dataclass; None if the target is something else, such as a function."""
    cls = _target(target, where=where)
    if not dataclasses.is_dataclass(cls):
        return None
    hints = _hints(cls)  # type: ignore[arg-type]
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _required(part: Mapping[str, Any]) -> list[str]:
    """Fields of a dataclass that have no default."""
    empty = dataclasses.MISSING
    fields = dataclasses.fields(_target(part["_target_"], where=""))
    return [f.name for f in fields if f.init and f.default is empty and f.default_factory is empty]
