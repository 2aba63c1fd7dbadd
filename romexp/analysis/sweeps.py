"""Which setting a sweep runs over, and which settings tell its lines apart (SPEC §6)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from romexp.results.settings import ABSENT, shown_value

Fields = Mapping[str, Any]
"""Values by dotted name, as `editor.layer`."""

LAYER = "editor.layer"
FACT_TOKENS = {
    "subject_first": "first subject token",
    "subject_last": "last subject token",
    "subject_first_after_last": "first subsequent token",
    "last": "last token",
}
BOUND = "editor.norm_constraint"
SYMBOLS = {BOUND: "ε"}


@dataclass(frozen=True, kw_only=True)
class SweepLine:
    """Entries that differ in the swept field alone.

    Attributes:
        label: the values of all other fields that vary; empty if none does.
        members: index of the entry by position on the axis (`SweepAxis.values`).
    """

    label: str
    members: Mapping[int, int]


@dataclass(frozen=True, kw_only=True)
class SweepAxis:
    """A sweep laid out for a figure.

    Attributes:
        name: the swept field.
        values: its values in order: numbers, then null.
        lines: one for each combination of the other fields that vary.
    """

    name: str
    values: Sequence[Any]
    lines: Sequence[SweepLine]

    @property
    def title(self) -> str:
        """What stands below the axis."""
        return f"norm constraint {SYMBOLS[BOUND]}" if self.name == BOUND else _name(self.name)

    @property
    def ticks(self) -> list[str]:
        """The values as they stand at the axis."""
        return ["none" if value is None else shown_value(value) for value in self.values]


def sweep_axis(entries: Sequence[Fields]) -> SweepAxis | None:
    """The layout of a sweep: over layers where they vary, else over the numeric field with the most values.

    Args:
        entries: of each entry, the fields in which not all agree (`Entry.distinct`).

    Returns:
        None where no numeric field varies.
    """
    values = {name: _values(entries, name) for name in dict.fromkeys(name for each in entries for name in each)}
    # A seed is a number that measures nothing.
    numeric = [
        name for name, found in values.items() if name != "seed" and len(found) > 1 and all(map(_is_number, found))
    ]
    if not numeric:
        return None
    name = LAYER if LAYER in numeric else max(numeric, key=lambda each: len(values[each]))
    others = [other for other in values if other != name]
    place = {_key(value): index for index, value in enumerate(values[name])}
    lines: dict[str, dict[int, int]] = {}
    in_order = sorted(range(len(entries)), key=lambda i: [_order(entries[i].get(other)) for other in others])
    for index in in_order:
        label = ", ".join(setting(other, entries[index].get(other)) for other in others)
        lines.setdefault(label, {}).setdefault(place[_key(entries[index].get(name))], index)
    return SweepAxis(
        name=name,
        values=values[name],
        lines=[SweepLine(label=label, members=members) for label, members in lines.items()],
    )


def setting(name: str, value: Any) -> str:
    """A setting as readers of the paper know it.

    >>> setting("editor.norm_constraint", 0.005), setting("editor.norm_constraint", None), setting("seed", 1)
    ('ε = 0.005', 'no bound', 'seed = 1')
    """
    if name == "editor.fact_token":
        return FACT_TOKENS.get(str(value), str(value))
    if name == BOUND and value is None:
        return "no bound"
    return f"{_name(name)} = {shown_value(value)}"


def _name(field: str) -> str:
    return SYMBOLS.get(field, field.removeprefix("editor.").replace("_", " "))


def _values(entries: Sequence[Fields], name: str) -> list[Any]:
    found = {_key(each.get(name)): each.get(name) for each in entries}
    return sorted(found.values(), key=_order)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, fact tokens in the order of the text, names by letter, then null."""
    if value is None or value == ABSENT:
        return 2, 0.0, ""
    if isinstance(value, (int, float)):
        return 0, float(value), ""
    tokens = list(FACT_TOKENS)
    return (1, float(tokens.index(value)), "") if value in tokens else (1, float(len(tokens)), _key(value))
