"""Shows summaries like the paper's tables: Table 4 for CounterFact, Table 1 for zsRE (docs/method.md §5.7, §8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from romexp.analysis.metrics import COUNTERFACT, ZSRE
from romexp.analysis.summary import UNEDITED, Statistics, Summary
from romexp.reporting.tables.fitting import MARGINS, FittingTable
from romexp.reporting.tables.model import failing, fixed

COLUMNS = tuple(dict.fromkeys((*COUNTERFACT, *ZSRE)))


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One line of a table.

    Attributes:
        label: label of the editor.
        metrics: the part `pre` or `post` of a summary.
        edited: false for the unedited model, whose cells are never red.
    """

    label: str
    metrics: Mapping[str, Statistics] = field(default_factory=dict)
    edited: bool = True


def table_rows(summary: Summary, *, editor: str) -> list[TableRow]:
    """The rows of a run: the unedited model's and, if the summary has it, the editor's."""
    rows = [TableRow(label=UNEDITED, metrics=summary.get("pre", {}), edited=False)]
    if "post" in summary:
        rows.append(TableRow(label=editor, metrics=summary["post"]))
    return rows


def columns_of(rows: Sequence[TableRow]) -> list[str]:
    """Those of the paper's columns that at least one row has, in the paper's order."""
    return [name for name in COLUMNS if any(name in row.metrics for row in rows)]


def cell(entry: Statistics | None) -> str:
    """Mean and 95 % half-width, as in `99.0 (0.3)`; for S the mean alone; a dash if there is no mean."""
    if entry is None or entry["mean"] is None:
        return "–"
    width = entry["half_width"]
    return fixed(entry["mean"]) + (f" ({fixed(width)})" if width is not None else "")


def is_clear_failure(row: TableRow, name: str) -> bool:
    """Whether a cell is red: an edited model's mean is below the paper's threshold for this kind of data set."""
    value = row.metrics[name]["mean"] if name in row.metrics else None
    return row.edited and failing(name, value, zsre="Efficacy" in row.metrics)


def rich_table(rows: Sequence[TableRow], *, title: str, heading: str = "Editor") -> Table:
    """The table for a terminal; clear failures are red.

    Args:
        heading: heading of the column of labels.
    """
    table = FittingTable(title=title, less_important=MARGINS)
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
