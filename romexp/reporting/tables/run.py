"""Summaries as the paper's tables: Table 4 for CounterFact, Table 1 for zsRE (docs/method.md §5.7, §8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from romexp.analysis.metrics import COUNTERFACT, ZSRE
from romexp.analysis.summary import UNEDITED, Statistics, Summary
from romexp.reporting.tables.model import failing, fixed

COLUMNS = tuple(dict.fromkeys((*COUNTERFACT, *ZSRE)))


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
    rows = [TableRow(label=UNEDITED, metrics=summary.get("pre", {}), edited=False)]
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
    return fixed(entry["mean"]) + (f" ({fixed(width)})" if width is not None else "")


def is_clear_failure(row: TableRow, name: str) -> bool:
    """Whether a cell is red: an edited model's mean below the paper's threshold for the row's kind of data set."""
    value = row.metrics[name]["mean"] if name in row.metrics else None
    return row.edited and failing(name, value, zsre="Efficacy" in row.metrics)


def rich_table(rows: Sequence[TableRow], *, title: str, heading: str = "Editor") -> Table:
    """The table for a terminal, clear failures in red.

    Args:
        heading: what the labels name.
    """
    table = Table(title=title)
    table.add_column(heading, no_wrap=True)
    names = columns_of(rows)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            Text(cell(row.metrics.get(name)), style="red" if is_clear_failure(row, name) else "") for name in names
        ]
        table.add_row(Text(row.label), *cells)
    return table
