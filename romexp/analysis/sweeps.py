"""What a sweep runs over: one rule for its table and for its figure (docs/method.md §6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from romexp.results.settings import ABSENT, shown_value

Fields = Mapping[str, Any]
"""Values by dotted name, as `editor.layer`."""
Scale = Literal["linear", "log", "names"]

LAYER = "editor.layer"
BOUND = "editor.norm_constraint"
FACT_TOKEN = "editor.fact_token"
FACT_TOKENS = {
    "subject_first": "first subject token",
    "subject_last": "last subject token",
    "subject_first_after_last": "first subsequent token",
    "last": "last token",
}
"""Tokens of a fact in the order of the text, with the words that the paper uses for them."""
SYMBOLS = {BOUND: "ε"}
LOG_FACTOR = 10
"""If the largest value is at least this many times the smallest, a logarithmic axis shows them better. The bounds of
the paper's Fig. 17 and App. I run from 5e-4 to 5e-3."""


@dataclass(frozen=True, kw_only=True)
class SweepLine:
    """Entries that differ in the swept field alone: a line of the figure, a series of the table.

    Attributes:
        label: the values of all other fields that vary. It is empty if no other field varies; then there is only one
            line, and it is called by the editor's name.
        members: index of the entry by position of its value in `SweepAxis.values`, in this order.
    """

    label: str
    members: Mapping[int, int]


@dataclass(frozen=True, kw_only=True)
class SweepAxis:
    """A sweep laid out for its table and its figure.

    Attributes:
        name: the swept field.
        values: its values in order: numbers by size, fact tokens in the order of the text, names by letter; then null;
            then `ABSENT`, for entries that do not have the field.
        lines: one for each combination of the other fields that vary, in the order of these fields' values.
    """

    name: str
    values: Sequence[Any]
    lines: Sequence[SweepLine]

    @property
    def title(self) -> str:
        """What stands below the axis."""
        return f"norm constraint {SYMBOLS[BOUND]}" if self.name == BOUND else _words(self.name)

    @property
    def ticks(self) -> list[str]:
        """The values as they stand at the axis and in the table."""
        return [_shown(self.name, value) for value in self.values]

    @property
    def scale(self) -> Scale:
        """How values are placed on the axis.

        `names`: side by side, because they are not numbers, or because they are seeds, whose size has no meaning.
        `log`: all numbers are positive, not all are integers, and they span a factor of at least `LOG_FACTOR`.
        `linear`: all other numbers, so layers too.
        """
        if _is_seed(self.name) or not _numeric(self.values):
            return "names"
        numbers = [value for value in self.values if _is_number(value)]
        if all(isinstance(number, int) for number in numbers) or numbers[0] <= 0:
            return "linear"
        # The quotient of 5e-3 and 5e-4 may be a rounding error below 10.
        return "log" if numbers[-1] / numbers[0] >= LOG_FACTOR * (1 - 1e-9) else "linear"

    @property
    def n_placed(self) -> int:
        """How many of the values, from the first, have a place on a numeric axis; null and `ABSENT` stand apart."""
        return 0 if self.scale == "names" else sum(map(_is_number, self.values))


def sweep_axis(entries: Sequence[Fields], *, x: str | None = None) -> SweepAxis | None:
    """Decide which field the entries of one editor are a sweep over, and lay the entries out along it.

    The swept field is `x` if it is given; else the layer if it varies; else the field with the most values. Of fields
    with equally many values, one with numbers comes before one with names, and then the first one counts. A seed is
    chosen only if nothing else varies.

    Args:
        entries: of each entry, the fields in which not all agree (`Entry.distinct`).
        x: dotted name of the field that the user wants to see the sweep over.

    Returns:
        None if no field varies, or if `x` does not vary.
    """
    found = {field: _values(entries, field) for field in dict.fromkeys(field for each in entries for field in each)}
    varying = {field: values for field, values in found.items() if len(values) > 1}
    name = _swept(varying) if x is None else x
    if name is None or name not in varying:
        return None
    others = [field for field in varying if field != name]
    # Positions, not values, are compared from here on: they are in order, and values of all types have them.
    places = {field: {repr(value): place for place, value in enumerate(values)} for field, values in varying.items()}

    def place(index: int, field: str) -> int:
        return places[field][repr(entries[index].get(field, ABSENT))]

    lines: dict[tuple[int, ...], dict[int, int]] = {}
    for index in sorted(range(len(entries)), key=lambda i: [place(i, field) for field in (*others, name)]):
        lines.setdefault(tuple(place(index, field) for field in others), {})[place(index, name)] = index
    return SweepAxis(
        name=name,
        values=varying[name],
        lines=[
            SweepLine(
                label=", ".join(setting(field, varying[field][at]) for field, at in zip(others, rest, strict=True)),
                members=members,
            )
            for rest, members in lines.items()
        ],
    )


def setting(name: str, value: Any) -> str:
    """A setting as readers of the paper know it.

    >>> setting("editor.norm_constraint", 0.005), setting("editor.norm_constraint", None), setting("seed", 1)
    ('ε = 0.005', 'no bound', 'seed = 1')
    """
    if name == BOUND and value is None:
        return "no bound"
    if name == FACT_TOKEN and isinstance(value, str) and value in FACT_TOKENS:
        return _shown(name, value)
    return f"{SYMBOLS.get(name) or _words(name)} = {_shown(name, value)}"


def _swept(varying: Mapping[str, Sequence[Any]]) -> str | None:
    if LAYER in varying:
        return LAYER
    # `max` takes the first of equals.
    return max(
        varying,
        key=lambda field: (not _is_seed(field), len(varying[field]), _numeric(varying[field])),
        default=None,
    )


def _words(field: str) -> str:
    return field.removeprefix("editor.").replace("_", " ")


def _shown(field: str, value: Any) -> str:
    if value is None:
        return "none"
    if value == ABSENT:
        return "not set"
    return FACT_TOKENS.get(value, value) if field == FACT_TOKEN and isinstance(value, str) else shown_value(value)


def _values(entries: Sequence[Fields], field: str) -> list[Any]:
    """Each value once, in order. They are told apart by `repr`, as in `romexp.results.settings.differing`."""
    found = {repr(value): value for value in (each.get(field, ABSENT) for each in entries)}
    return sorted(found.values(), key=lambda value: _order(field, value))


def _order(field: str, value: Any) -> tuple[int, float, str]:
    if value is None or value == ABSENT:
        return (2 if value is None else 3), 0.0, ""
    if isinstance(value, (int, float)):
        return 0, float(value), ""
    tokens = list(FACT_TOKENS) if field == FACT_TOKEN else []
    return 1, float(tokens.index(value) if value in tokens else len(tokens)), str(value)


def _is_seed(field: str) -> bool:
    return field.rpartition(".")[2] == "seed"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _numeric(values: Sequence[Any]) -> bool:
    """At least one number, and no other value than numbers, null and `ABSENT`."""
    rest = [value for value in values if value is not None and value != ABSENT]
    return bool(rest) and all(map(_is_number, rest))
