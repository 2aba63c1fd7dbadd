"""Shows summaries like the paper's tables: Table 4 for CounterFact, Table 1 for zsRE (docs/method.md §5.7, §8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from romexp.analysis.metrics import COUNTERFACT, ZSRE
from romexp.analysis.summary import UNEDITED, Statistics, Summary
from romexp.reporting.tables.fitting import MARGINS, FittingTable
from romexp.reporting.tables.model import NOT_TUNED, NOT_TUNED_MARK, failing, fixed, in_parentheses
from romexp.reporting.terminal import literal

COLUMNS = tuple(dict.fromkeys((*COUNTERFACT, *ZSRE)))


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One line of a table.

    Attributes:
        label: label of the editor.
        metrics: the part `pre` or `post` of a summary.
        edited: false for the unedited model, whose cells are never red.
        not_tuned: the editor's settings that are another model's.
    """

    label: str
    metrics: Mapping[str, Statistics] = field(default_factory=dict)
    edited: bool = True
    not_tuned: Sequence[str] = ()

    @property
    def shown_label(self) -> str:
        """The label, marked if settings are another model's."""
        return self.label + (f" {NOT_TUNED_MARK}" if self.not_tuned else "")


def table_rows(summary: Summary, *, editor: str, not_tuned: Iterable[str] = ()) -> list[TableRow]:
    """The rows of a run: the unedited model's and, if the summary has it, the editor's.

    Args:
        not_tuned: names of the editor's settings that are another model's.
    """
    rows = [TableRow(label=UNEDITED, metrics=summary.get("pre", {}), edited=False)]
    if "post" in summary:
        rows.append(TableRow(label=editor, metrics=summary["post"], not_tuned=tuple(not_tuned)))
    return rows


def columns_of(rows: Sequence[TableRow]) -> list[str]:
    """Those of the paper's columns that at least one row has, in the paper's order."""
    return [name for name in COLUMNS if any(name in row.metrics for row in rows)]


def cell(entry: Statistics | None) -> str:
    """Mean and reach of its 95 % interval, as in `99.0 (0.3)`; for S the mean alone; a dash if there is no mean."""
    if entry is None or entry["mean"] is None:
        return "–"
    return fixed(entry["mean"]) + in_parentheses(entry)


def is_clear_failure(row: TableRow, name: str) -> bool:
    """Whether a cell is red: an edited model's mean is below the paper's threshold for this kind of data set."""
    value = row.metrics[name]["mean"] if name in row.metrics else None
    return row.edited and failing(name, value, zsre="Efficacy" in row.metrics)


def rich_table(rows: Sequence[TableRow], *, title: str, heading: str = "Editor") -> Table:
    """The table for a terminal; clear failures are red.

    Args:
        heading: heading of the column of labels.
    """
    names = columns_of(rows)
    table = FittingTable(title=title, caption=_caption(rows), caption_justify="left", less_important=MARGINS)
    for column in (heading, *names):
        table.add_column(column, justify="left" if column == heading else "right", no_wrap=True)
    for row in rows:
        cells = [
            literal(cell(row.metrics.get(name)), style="red" if is_clear_failure(row, name) else "") for name in names
        ]
        table.add_row(literal(row.shown_label), *cells)
    return table


def _caption(rows: Sequence[TableRow]) -> Text | None:
    """Explains the mark of settings that are another model's, if a row has it."""
    settings = dict.fromkeys(name for row in rows for name in row.not_tuned)
    return literal(f"{NOT_TUNED_MARK} {NOT_TUNED}: {', '.join(settings)}", style="table.caption") if settings else None
