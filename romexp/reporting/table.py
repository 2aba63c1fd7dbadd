"""Summaries as the paper's tables: Table 4 for CounterFact, Table 1 for zsRE (SPEC §5.7, §8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from romexp.reporting.metrics import COUNTERFACT, ZSRE
from romexp.reporting.summary import Statistics, Summary

COLUMNS = tuple(dict.fromkeys((*COUNTERFACT, *ZSRE)))

CLEAR_FAILURE: Mapping[str, float] = {
    "S": 50, "ES": 75, "EM": 20, "PS": 60, "PM": 10, "NS": 45, "NM": -5, "GE": 600, "RS": 31,
}  # fmt: skip
"""CounterFact values below these are printed in red, as in the paper (SPEC §5.7)."""

CLEAR_FAILURE_ZSRE: Mapping[str, float] = {"S": 20, "Efficacy": 50, "Paraphrase": 50, "Specificity": 20}
"""The same for zsRE."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One line of a table.

    Attributes:
        label: the editor.
        metrics: one side of a summary.
        edited: false for the unedited model, whose cells are never red: it has nothing to succeed at.
    """

    label: str
    metrics: Mapping[str, Statistics] = field(default_factory=dict)
    edited: bool = True


def table_rows(summary: Summary, *, editor: str) -> list[TableRow]:
    """The two lines of a run, `unedited` and the editor's; those that the summary has."""
    rows = [TableRow(label="unedited", metrics=summary.get("pre", {}), edited=False)]
    if "post" in summary:
        rows.append(TableRow(label=editor, metrics=summary["post"]))
    return rows


def columns_of(rows: Sequence[TableRow]) -> list[str]:
    """The paper's columns, in its order, that at least one row has."""
    return [name for name in COLUMNS if any(name in row.metrics for row in rows)]


def cell(entry: Statistics | None) -> str:
    """`99.0 (0.3)`: mean and 95 % half-width; the mean alone for S, a dash where there is none."""
    if entry is None or entry["mean"] is None:
        return "–"
    width = entry["half_width"]
    return _fixed(entry["mean"]) + (f" ({_fixed(width)})" if width is not None else "")


def is_clear_failure(row: TableRow, name: str, thresholds: Mapping[str, float] | None = None) -> bool:
    """Whether a cell is red: an edited model's mean below the metric's threshold.

    Args:
        thresholds: by metric; None takes the paper's for the row's kind of data set.
    """
    if thresholds is None:
        thresholds = CLEAR_FAILURE_ZSRE if "Efficacy" in row.metrics else CLEAR_FAILURE
    entry = row.metrics.get(name)
    if not row.edited or entry is None or entry["mean"] is None or name not in thresholds:
        return False
    return bool(entry["mean"] < thresholds[name])


def rich_table(rows: Sequence[TableRow], *, title: str = "", thresholds: Mapping[str, float] | None = None) -> Table:
    """The table for a terminal, clear failures in red."""
    table = Table(title=title or None)
    table.add_column("Editor", no_wrap=True)
    names = columns_of(rows)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            Text(cell(row.metrics.get(name)), style="red" if is_clear_failure(row, name, thresholds) else "")
            for name in names
        ]
        table.add_row(Text(row.label), *cells)
    return table


def plain_table(rows: Sequence[TableRow]) -> str:
    """The table as lines of text with aligned columns, for files and logs; no colours, no line break at the end."""
    names = columns_of(rows)
    lines = [["Editor", *names], *([row.label, *(cell(row.metrics.get(name)) for name in names)] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names) + 1)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def _fixed(value: Any) -> str:
    """One decimal, and never `-0.0`."""
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text
