"""Converts a value of a configuration to the type of the field that it is for, or refuses it."""

from __future__ import annotations

import collections.abc
import math
import os
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""Words for a switch. Hydra itself reads `true` and `false`; the others are what YAML calls them."""

LARGEST_INT = 2**63 - 1
"""Numbers beyond it, of either sign, fit no counter and no seed."""

QUOTE = " (write "
"""What leads over to how a number is given as text."""

NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[+-]?\d+)?", re.IGNORECASE)


class WrongType(Exception):
    """A value that a field cannot hold. The message says what was expected."""


Part = Callable[[Any], Any]
"""What looks at a value in which objects are configured (mappings with a `_target_`), and returns it."""


def as_type(value: Any, hint: Any, *, part: Part) -> Any:
    """The value that an object's field holds.

    A number in text, as an environment variable gives it, counts as the number. For a field of integers a whole float
    is that integer. A field of floats keeps an integer as it is, because `3` and `3.0` give different hashes of a run.
    Lists are tuples afterwards, unless the field asks for a list or a set.

    Args:
        value: a plain value.
        hint: the field's type.
        part: looks at a value that is a configured object, or of which the type says nothing.

    Raises:
        WrongType: the value means nothing for this type.
    """
    if is_part(value):
        return part(value)
    origin = get_origin(hint) or hint
    if hint is Any or isinstance(hint, TypeVar):
        return part(value)
    if hint is None or hint is types.NoneType:
        return _none(value)
    if origin in _PLAIN:
        return _PLAIN[origin](value)
    if origin in (Union, types.UnionType):
        return _any_of(value, get_args(hint), part)
    if origin is Literal:
        return _literal(value, get_args(hint))
    if origin in _LISTS:
        return _list(value, origin, get_args(hint), part)
    if origin in (dict, collections.abc.Mapping):
        return _mapping(value, get_args(hint), part)
    return _other(value, hint)


def is_part(value: Any) -> bool:
    """Whether this configures an object."""
    return isinstance(value, Mapping) and "_target_" in value


def is_on(value: Any) -> bool:
    """Whether a switch is on; False for what is no switch."""
    try:
        return _bool(value)
    except WrongType:
        return False


def _none(value: Any) -> None:
    if value is not None:
        raise WrongType("null")


def _bool(value: Any) -> bool:
    word = SWITCH.get(value.lower()) if isinstance(value, str) else value
    if isinstance(word, bool):
        return word
    raise WrongType("a valid boolean (true or false, yes or no, on or off)")


def _int(value: Any) -> int:
    number = _number(value, "a valid integer")
    if number != int(number) or abs(number) > LARGEST_INT:
        raise WrongType("a valid integer" if abs(number) <= LARGEST_INT else "a valid integer below 2^63")
    return int(number)


def _float(value: Any) -> float:
    return _number(value, "a valid number")


def _number(value: Any, expected: str) -> float:
    """A finite number: an integer stays one."""
    number = value
    if isinstance(value, str) and NUMBER.fullmatch(value):
        number = int(value) if re.fullmatch(r"[+-]?\d{1,20}", value) else float(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise WrongType(expected)
    try:
        if math.isfinite(number):
            return number
    except OverflowError:  # an integer that no float can hold
        pass
    raise WrongType(f"{expected}, which is finite")


def _str(value: Any) -> str:
    if isinstance(value, str):
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    raise WrongType("a valid string" + (f"{QUOTE}'\"{value}\"')" if is_number else ""))


def _path(value: Any) -> Path:
    if isinstance(value, (str, Path)):
        return Path(value)
    raise WrongType("a path")


_PLAIN: Mapping[Any, Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    Path: _path,
    os.PathLike: _path,
}

_LISTS: Mapping[Any, type] = {
    tuple: tuple,
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: tuple,
    collections.abc.Collection: tuple,
    collections.abc.Iterable: tuple,
    collections.abc.Set: frozenset,
}
"""Types of fields that are written as a list, and what the field holds."""


def _any_of(value: Any, hints: tuple[Any, ...], part: Part) -> Any:
    """The first of the types that takes the value. Text stays text where text is allowed, and null stays null."""
    for exact in (str, types.NoneType):
        if exact in hints and isinstance(value, exact):
            return value
    reasons = []
    for hint in hints:
        try:
            return as_type(value, hint, part=part)
        except WrongType as wrong:
            reasons.append(str(wrong) if len(set(hints) - {types.NoneType}) == 1 else str(wrong).partition(QUOTE)[0])
    raise WrongType(" or ".join(dict.fromkeys(reasons)))


def _literal(value: Any, words: tuple[Any, ...]) -> Any:
    """One of the words. Where they are `on` and `off`, every word for a switch is."""
    for word in words:
        if type(word) is type(value) and word == value:
            return word
    if set(words) == {"on", "off"} and (isinstance(value, bool) or str(value).lower() in SWITCH):
        return "on" if is_on(value) else "off"
    raise WrongType(" or ".join(repr(word) for word in words))


def _list(value: Any, origin: Any, hints: tuple[Any, ...], part: Part) -> Any:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise WrongType("a valid list" if isinstance(value, Mapping) or value is None else f"a valid list ([{value}])")
    items = list(value)
    if origin is tuple and hints and hints[-1] is not Ellipsis:
        if len(items) != len(hints):
            raise WrongType(f"a list of {len(hints)} values")
        return tuple(as_type(item, hint, part=part) for item, hint in zip(items, hints, strict=True))
    hint = hints[0] if hints else Any
    try:
        return _LISTS[origin](as_type(item, hint, part=part) for item in items)
    except WrongType as wrong:
        raise WrongType(f"a list of which each is {wrong}") from wrong


def _mapping(value: Any, hints: tuple[Any, ...], part: Part) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise WrongType("a mapping")
    key_hint, hint = hints or (Any, Any)
    return {as_type(key, key_hint, part=part): as_type(item, hint, part=part) for key, item in value.items()}


def _other(value: Any, hint: Any) -> Any:
    """What pydantic makes of it. A class or a protocol is the type of an object, and this value configures none."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError  # half a second, seldom needed

    try:
        if is_dataclass(hint):
            raise TypeError
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=False))
    except (PydanticUserError, TypeError):
        raise WrongType("an object (a mapping with `_target_`)") from None
    try:
        return adapter.validate_python(value, strict=not isinstance(value, str))
    except ValidationError as error:
        reasons = dict.fromkeys(problem["msg"].removeprefix("Input should be ") for problem in error.errors())
        raise WrongType(" or ".join(reasons)) from error
