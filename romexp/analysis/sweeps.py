"""Decides which setting a sweep varies, and arranges its entries for the table and the figure (docs/method.md §6.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from romexp.results.settings import ABSENT, shown_value

Fields = Mapping[str, Any]
"""Values by dotted name, for example `editor.layer`."""
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
"""The values of `editor.fact_token` in the order of the text, with the paper's words for them."""
SYMBOLS = {BOUND: "ε"}
LOG_FACTOR = 10
"""An axis is logarithmic if the largest value is at least this many times the smallest.

The bounds of the paper's Fig. 17 and App. I, from 5e-4 to 5e-3, just reach this factor.
"""


@dataclass(frozen=True, kw_only=True)
class SweepLine:
    """Entries that differ only in the swept field. They are a line of the figure and a series of the table.

    Attributes:
        label: the values of all other fields that vary. It is empty if no other field varies. Then there is only one
            line, and it has the editor's name.
        members: a mapping from the position of a value in `SweepAxis.values` to the index of the entry with this value,
            in order of position.
    """

    label: str
    members: Mapping[int, int]


@dataclass(frozen=True, kw_only=True)
class SweepAxis:
    """A sweep laid out for its table and its figure.

    Attributes:
        name: the swept field.
        values: the values of this field: numbers by size, fact tokens in the order of the text, names alphabetically;
            then null; then `ABSENT`, for entries that do not have the field.
        lines: a line for each combination of the other fields that vary, sorted by the values of these fields.
    """

    name: str
    values: Sequence[Any]
    lines: Sequence[SweepLine]

    @property
    def title(self) -> str:
        """The title of the axis."""
        return f"norm constraint {SYMBOLS[BOUND]}" if self.name == BOUND else _words(self.name)

    @property
    def ticks(self) -> list[str]:
        """The values as texts, for the axis and the table."""
        return [_shown(self.name, value) for value in self.values]

    @property
    def scale(self) -> Scale:
        """How values are placed on the axis.

        `names`: at equal distances, for values that are not numbers, and for seeds, since their size has no meaning.
        `log`: for positive numbers that are not all integers and span a factor of at least `LOG_FACTOR`.
        `linear`: for all other numbers, for example layers.
        """
        if _is_seed(self.name) or not _numeric(self.values):
            return "names"
        numbers = [value for value in self.values if _is_number(value)]
        if all(isinstance(number, int) for number in numbers) or numbers[0] <= 0:
            return "linear"
        # Because of rounding, the quotient of 5e-3 and 5e-4 may be slightly below 10.
        return "log" if numbers[-1] / numbers[0] >= LOG_FACTOR * (1 - 1e-9) else "linear"

    @property
    def n_placed(self) -> int:
        """How many of the first values have a place on a numeric axis. Null and `ABSENT` follow them and have none."""
        return 0 if self.scale == "names" else sum(map(_is_number, self.values))


def sweep_axis(entries: Sequence[Fields], *, x: str | None = None) -> SweepAxis | None:
    """Decide which field a sweep of one editor varies, and arrange its entries along this field.

    The swept field is `x` if it is given; else the layer if it varies; else the field with the most values. Of fields
    with equally many values, one with numbers is preferred to one with names, and then the first one. A seed is chosen
    only if nothing else varies.

    Args:
        entries: for each entry, the fields that are not equal in all entries (`Entry.distinct`).
        x: dotted name of the field that the user has chosen; None if the user has chosen none.

    Returns:
        None if no field varies, or if `x` does not vary.
    """
    found = {field: _values(entries, field) for field in dict.fromkeys(field for each in entries for field in each)}
    varying = {field: values for field, values in found.items() if len(values) > 1}
    name = _swept(varying) if x is None else x
    if name is None or name not in varying:
        return None
    others = [field for field in varying if field != name]
    # From here on, positions are compared instead of values, since values may be of types that cannot be compared.
    positions = {field: {repr(value): at for at, value in enumerate(values)} for field, values in varying.items()}

    def position(index: int, field: str) -> int:
        return positions[field][repr(entries[index].get(field, ABSENT))]

    lines: dict[tuple[int, ...], dict[int, int]] = {}
    for index in sorted(range(len(entries)), key=lambda i: [position(i, field) for field in (*others, name)]):
        lines.setdefault(tuple(position(index, field) for field in others), {})[position(index, name)] = index
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
    """A setting in the paper's words.

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
    # If several fields have an equal key, `max` returns the first.
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
    """The different values of a field, sorted. As in `results.settings.differing`, `repr` tells them apart."""
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
    """Whether all values except null and `ABSENT` are numbers, and there is at least one number."""
    present = [value for value in values if value is not None and value != ABSENT]
    return bool(present) and all(map(_is_number, present))
