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


def rich_table(rows: Sequence[TableRow], *, title: str, heading: str = "Editor", notes: Sequence[str] = ()) -> Table:
    """The table for a terminal; clear failures are red.

    Args:
        heading: heading of the column of labels.
        notes: what a reader must know, below the table.
    """
    names = columns_of(rows)
    table = FittingTable(title=title, caption=_caption(rows, notes), caption_justify="left", less_important=MARGINS)
    for column in (heading, *names):
        table.add_column(column, justify="left" if column == heading else "right", no_wrap=True)
    for row in rows:
        cells = [
            literal(cell(row.metrics.get(name)), style="red" if is_clear_failure(row, name) else "") for name in names
        ]
        table.add_row(literal(row.shown_label), *cells)
    return table


def coverage_notes(summary: Summary, *, without_old_answer: int) -> list[str]:
    """What the data set did not give to all cases: which metrics are means over fewer, and what replaces them.

    Args:
        without_old_answer: number of facts that do not say the answer before the edit.
    """
    count, side = summary.get("n_cases", 0), summary.get("post") or summary.get("pre", {})
    notes = []
    if without_old_answer:
        facts = "no fact names" if without_old_answer >= count else f"{without_old_answer} of {count} facts do not name"
        shown = " and ".join(name for name in ZSRE[1:3] if name in side)
        notes.append(f"{facts} the old answer; {shown}: accuracy of the new answer's tokens in place of ES, EM, PS, PM")
    partial: dict[int, list[str]] = {}
    for name, entry in side.items():
        if name in (*COUNTERFACT[1:7], *ZSRE[1:]) and 0 < entry["n"] < count:
            partial.setdefault(entry["n"], []).append(name)
    return notes + [f"{', '.join(names)}: {n} of {count} cases" for n, names in sorted(partial.items())]


def _caption(rows: Sequence[TableRow], notes: Sequence[str]) -> Text | None:
    """The notes, and the mark of settings that are another model's if a row has it."""
    settings = dict.fromkeys(name for row in rows for name in row.not_tuned)
    lines = [*notes, *([f"{NOT_TUNED_MARK} {NOT_TUNED}: {', '.join(settings)}"] if settings else [])]
    return literal("\n".join(lines), style="table.caption") if lines else None
