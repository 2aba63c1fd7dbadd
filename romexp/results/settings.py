"""What tells configurations apart: the fields in which their identities differ, and short names made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
Fields = dict[str, Any]
"""Values by dotted name, as `editor.layer`."""

ABSENT = "(none)"
"""The value of a field that an identity does not have."""


def flat(identity: Json) -> Fields:
    """Every leaf of nested mappings by its dotted name; lists are leaves.

    >>> flat({"editor": {"layer": 3}, "seed": 0})
    {'editor.layer': 3, 'seed': 0}
    """
    return dict(_leaves(identity, ""))


def differing(identities: Sequence[Json]) -> list[Fields]:
    """For each identity its values of the fields in which not all of them agree, in the order of the first."""
    leaves = [flat(identity) for identity in identities]
    names = dict.fromkeys(name for fields in leaves for name in fields)
    varying = [name for name in names if len({repr(fields.get(name, ABSENT)) for fields in leaves}) > 1]
    return [{name: fields.get(name, ABSENT) for name in varying} for fields in leaves]


def short(fields: Mapping[str, Any]) -> str:
    """`layer=3, seed=1`: the last part of each name, or all of it where two would be called the same.

    >>> short({"editor.layer": 3, "covariance.corpus.type": "Text", "covariance.type": "Shipped"})
    'layer=3, covariance.corpus.type=Text, covariance.type=Shipped'
    """
    last = [name.rpartition(".")[2] for name in fields]
    shown = [part if last.count(part) == 1 else name for part, name in zip(last, fields, strict=True)]
    return ", ".join(f"{name}={shown_value(value)}" for name, value in zip(shown, fields.values(), strict=True))


def free_name(name: str, taken: set[str], joint: str) -> str:
    """The name, or with a number after it where it is taken; from now on it is."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}{joint}{number}"
    taken.add(free)
    return free


def shown_value(value: Any) -> str:
    """As one would write it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(shown_value, value)) + "]"
    if isinstance(value, float):
        brief = f"{value:g}"
        return brief if float(brief) == value else repr(value)
    return str(value)


def sort_key(value: Any) -> tuple[int, float, str]:
    """Orders values of one field: none first, then numbers, then everything else by text."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, (int, float)):
        return 1, float(value), ""
    return 2, 0.0, str(value)


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not prefix):
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
