"""Tables of a report as data, before they are written as Markdown, CSV, LaTeX, terminal text or HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from romexp.analysis.intervals import half_width_of, reach_of
from romexp.analysis.summary import Statistics

Mark = Literal["", "best", "failure", "strong"]
Role = Literal["measured", "published", "difference"]

HEADINGS: Mapping[str, str] = {
    "S": "Score", "ES": "Efficacy", "EM": "Efficacy", "PS": "Generalization", "PM": "Generalization",
    "NS": "Specificity", "NM": "Specificity", "GE": "Fluency", "RS": "Consistency",
}  # fmt: skip
"""Headings above the columns of the paper's Table 4."""

CLEAR_FAILURE: Mapping[str, float] = {
    "S": 50, "ES": 75, "EM": 20, "PS": 60, "PM": 10, "NS": 45, "NM": -5, "GE": 600, "RS": 31,
}  # fmt: skip
"""CounterFact values below these are printed in red, as in the paper (docs/method.md §5.7)."""

CLEAR_FAILURE_ZSRE: Mapping[str, float] = {"S": 20, "Efficacy": 50, "Paraphrase": 50, "Specificity": 20}
"""Likewise for zsRE."""

REACH_EXPLAINED = (
    "In parentheses: how far the 95 % interval reaches from the value, at most; rates have Wilson's interval. S is "
    "given with its bootstrap interval."
)
"""Explains the numbers in parentheses of all tables but the paper's."""

HALF_WIDTH_EXPLAINED = (
    "In parentheses: the half-width 1.96·σ/√n of the 95 % interval, as in the paper; S is given with its bootstrap "
    "interval."
)
"""Explains the numbers in parentheses of tables with published values."""

NOT_TUNED_MARK = "†"
NOT_TUNED = "settings not tuned for this model"
"""What the mark of an editor's row says: the values are those of another model (`romexp.model_settings`)."""

MARKS_EXPLAINED = (
    "Green, bold: a model's highest value of a column, of two editors or more. Red: a clear failure, by the paper's "
    "thresholds."
)
"""Explains the marks of cells; the paper uses the same colours."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's name, and the heading that it shares with its neighbours."""

    name: str
    heading: str = ""
    numeric: bool = True


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        text: what is shown.
        value: the number behind the text, for sorting; None if there is none.
        mark: `best` for the highest value of its column, `failure` for a clear failure, `strong` for bold type.
    """

    text: str
    value: float | None = None
    mark: Mark = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table.

    Attributes:
        role: whether the values are measured, published, or the difference of these two.
        below: whether it belongs to the line above, as a published line or a difference does to a measured line.
        model: the model that it is about, for filters; empty if it is about no single model.
        dataset: likewise the data set.
        editors: labels of the editors that it is about, such as `FT+L`; empty for the unedited model.
    """

    cells: tuple[Cell, ...]
    role: Role = "measured"
    below: bool = False
    model: str = ""
    dataset: str = ""
    editors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Block:
    """Lines that belong together, such as those of one model.

    Attributes:
        notes: what is missing or cannot be compared: cases, settings that differ from the paper's.
        remarks: what the reader must know about the values shown: cases left out, settings that are another model's.
        commands: commands that compute what is missing.
    """

    title: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """A table of a report.

    Attributes:
        name: stem of its files, such as `table4`.
        records: the unrounded numbers, one flat record for each line; they are written to the CSV file.
        caption: explanations that hold for the whole table.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    caption: str = ""
    records: tuple[Mapping[str, Any], ...] = field(default=())


def metric_columns(names: Sequence[str]) -> tuple[Column, ...]:
    """Columns of metrics, with the paper's headings."""
    return tuple(Column(name=name, heading=HEADINGS.get(name, "")) for name in names)


def statistic_cell(entry: Statistics | None, *, sign: bool = False, as_paper: bool = False) -> Cell:
    """A mean with the reach of its interval, as in `99.0 (0.3)`, or for S with its interval, as in `89.2 [88.9, 89.5]`.

    If there is no value, the cell shows a dash.

    Args:
        sign: write a plus sign before positive means.
        as_paper: show the paper's half-width, which is 0 for a rate of 100 %, instead of the reach.
    """
    if entry is None or entry["mean"] is None:
        return Cell(text="–")
    text = fixed(entry["mean"], sign=sign) + in_parentheses(entry, as_paper=as_paper)
    low, high = entry.get("interval") or (None, None)
    if not is_mean(entry) and low is not None and high is not None:
        text += f" [{fixed(low)}, {fixed(high)}]"
    return Cell(text=text, value=entry["mean"])


def is_mean(entry: Statistics) -> bool:
    """Whether this is a mean over cases, which all metrics are but S."""
    return "std" in entry or entry.get("half_width") is not None


def in_parentheses(entry: Statistics, *, as_paper: bool = False) -> str:
    """What follows a mean in a cell: ` (0.3)`, or ` (–)` if a single case says nothing of others; for S nothing.

    Args:
        as_paper: see `statistic_cell`.
    """
    if not is_mean(entry):
        return ""
    width = half_width_of(entry) if as_paper else reach_of(entry)
    return f" ({'–' if width is None else fixed(width)})"


def failing(metric: str, value: float | None, *, zsre: bool) -> bool:
    """Whether an edited model's value is a clear failure by the paper's thresholds (docs/method.md §5.7)."""
    threshold = (CLEAR_FAILURE_ZSRE if zsre else CLEAR_FAILURE).get(metric)
    return value is not None and threshold is not None and value < threshold


def with_failures(cells: Sequence[Cell], metrics: Sequence[str], *, zsre: bool) -> list[Cell]:
    """Mark an editor's clear failures."""
    return [
        replace(cell, mark="failure") if failing(name, cell.value, zsre=zsre) else cell
        for name, cell in zip(metrics, cells, strict=True)
    ]


def with_best(lines: Sequence[Line], columns: Sequence[int], among: Sequence[int]) -> list[Line]:
    """Mark the highest printed value of each column, unless it is a failure. Equal values are all marked.

    Args:
        columns: positions of the cells.
        among: positions of the lines that are compared; if fewer than two have a value, none is marked.
    """
    out = [list(line.cells) for line in lines]
    for column in columns:
        values = {i: cell.value for i in among if (cell := out[i][column]).value is not None}
        if len(values) < 2:
            continue
        top = fixed(max(value for value in values.values() if value is not None))
        for i, value in values.items():
            if value is not None and fixed(value) == top and not out[i][column].mark:
                out[i][column] = replace(out[i][column], mark="best")
    return [replace(line, cells=tuple(cells)) for line, cells in zip(lines, out, strict=True)]


def fixed(value: float, *, sign: bool = False) -> str:
    """The number with one decimal; `-0.0` becomes `0.0`."""
    text = f"{value:+.1f}" if sign else f"{value:.1f}"
    return {"-0.0": "+0.0" if sign else "0.0"}.get(text, text)
