"""Finds the fields in which identities differ, and makes short names of them that tell configurations apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
Fields = dict[str, Any]
"""Values by dotted name, for example `editor.layer`."""

ABSENT = "(none)"
"""The value of a field that an identity does not have."""


def flat(identity: Json) -> Fields:
    """The leaves of nested mappings, by dotted name. A list is a leaf.

    >>> flat({"editor": {"layer": 3}, "seed": 0})
    {'editor.layer': 3, 'seed': 0}
    """
    return dict(_leaves(identity, ""))


def differing(identities: Sequence[Json]) -> list[Fields]:
    """For each identity, its values of the fields that differ between identities, in order of first occurrence."""
    leaves = [flat(identity) for identity in identities]
    names = dict.fromkeys(name for fields in leaves for name in fields)
    varying = [name for name in names if len({repr(fields.get(name, ABSENT)) for fields in leaves}) > 1]
    return [{name: fields.get(name, ABSENT) for name in varying} for fields in leaves]


def telling(several: Sequence[Fields]) -> list[Fields]:
    """The fields of `differing` without those of a nested part that follow from other fields of the same part.

    Two corpora differ in their type and in everything that only one type has; one field tells them apart. Fields that
    are not nested, such as an editor's own settings, always stay: two that were changed together are two facts.

    >>> telling([{"a.b.type": "x", "a.b.n": 1, "seed": 0}, {"a.b.type": "y", "a.b.n": "(none)", "seed": 1}])
    [{'a.b.type': 'x', 'seed': 0}, {'a.b.type': 'y', 'seed': 1}]
    """
    kept = list(several[0]) if several else []
    for name in reversed(list(kept)):
        part = name.rpartition(".")[0]
        others = [other for other in kept if other != name and other.startswith(f"{part}.")]
        if "." in part and others and _follows(several, name, others):
            kept.remove(name)
    return [{name: fields[name] for name in kept} for fields in several]


def _follows(several: Sequence[Fields], name: str, others: Sequence[str]) -> bool:
    """Whether configurations that agree in the other fields agree in this one."""
    values: dict[str, set[str]] = {}
    for fields in several:
        values.setdefault(repr([fields[other] for other in others]), set()).add(repr(fields[name]))
    return all(len(found) == 1 for found in values.values())


def short(fields: Mapping[str, Any]) -> str:
    """A text such as `layer=3, seed=1`. It has the last part of each name, or the whole name if two parts are equal.

    >>> short({"editor.layer": 3, "covariance.corpus.type": "Text", "covariance.type": "Shipped"})
    'layer=3, covariance.corpus.type=Text, covariance.type=Shipped'
    """
    last_parts = [name.rpartition(".")[2] for name in fields]
    shown = [part if last_parts.count(part) == 1 else name for part, name in zip(last_parts, fields, strict=True)]
    return ", ".join(f"{name}={shown_value(value)}" for name, value in zip(shown, fields.values(), strict=True))


def free_name(name: str, taken: set[str], joint: str) -> str:
    """The name, followed by `joint` and a number if it is taken already. The result is added to `taken`."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}{joint}{number}"
    taken.add(free)
    return free


def shown_value(value: Any) -> str:
    """The value as it is written on the command line."""
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
    """Sort key for values of one field: None first, then numbers, then all others by their text."""
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
