"""A sweep as a table: metrics by the value of one setting, in one series for each combination of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from romexp.analysis.intervals import interval_of
from romexp.analysis.metrics import columns_of
from romexp.analysis.missing import as_few_commands, study_gaps
from romexp.analysis.shared_cases import on_shared_cases
from romexp.analysis.studies import Entry, Study
from romexp.analysis.sweeps import SweepAxis, sweep_axis
from romexp.reporting.tables.model import (
    REACH_EXPLAINED,
    Block,
    Cell,
    Column,
    Line,
    ReportTable,
    metric_columns,
    statistic_cell,
    with_best,
    with_failures,
)
from romexp.reporting.tables.remarks import APART, mark, remarks
from romexp.results.settings import shown_value

CAPTION = (
    f"{REACH_EXPLAINED} Green, bold: the sweep's highest value of a column. Red: a clear failure, by the paper's "
    "thresholds."
)
N_LABEL_COLUMNS = 3
"""Number of columns before the metrics: series, value, cases."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """An entry at its place in the sweep.

    Attributes:
        series: label of its line (`SweepLine.label`), or the editor's name if there is only one line.
        shown: its value of the swept setting, as the figure's axis shows it.
        value: the same value as in the configuration.
    """

    entry: Entry
    series: str
    shown: str
    value: Any


def sweep_table(studies: Sequence[Study], *, x: str | None = None, shared: bool = True) -> ReportTable:
    """A block for each editor that was run with several values of a setting.

    Setting, order and series are those of the figure (`romexp.analysis.sweeps.sweep_axis`).

    Args:
        x: dotted name of the setting, such as `editor.norm_constraint`; None lets `sweep_axis` choose it.
        shared: compare the entries of a sweep on the cases that they share.
    """
    blocks, records = [], []
    sweeps = [
        (study, entries, axis)
        for study in studies
        for entries in study.by_editor.values()
        if (axis := sweep_axis([entry.distinct for entry in entries], x=x)) is not None
    ]
    names = tuple(dict.fromkeys(name for study, _, _ in sweeps for name in columns_of(study.kind)))
    for study, entries, axis in sweeps:
        swept = replace(study, entries=tuple(entries))
        compared = on_shared_cases(swept) if shared else swept
        rows = _rows(compared.entries, axis)
        blocks.append(_block(study, compared, rows, axis.name, names))
        records += [_record(study, row, axis.name, names) for row in rows]
    return ReportTable(
        name="sweep",
        title="Sweeps",
        columns=(
            Column(name="Series", numeric=False),
            Column(name="Value"),
            Column(name="Cases"),
            *metric_columns(names),
        ),
        blocks=tuple(blocks),
        caption=CAPTION,
        records=tuple(records),
    )


def _rows(entries: Sequence[Entry], axis: SweepAxis) -> list[_Row]:
    """The entries, line by line and in the order of the axis."""
    return [
        _Row(
            entry=entries[index],
            series=line.label or entries[0].name,
            shown=axis.ticks[place],
            value=axis.values[place],
        )
        for line in axis.lines
        for place, index in line.members.items()
    ]


def _block(study: Study, compared: Study, rows: Sequence[_Row], field: str, names: Sequence[str]) -> Block:
    """One sweep.

    Args:
        study: all that was measured, for the gaps.
        compared: the entries of the sweep, with the cases that they are compared on.
    """
    lines = [_line(study, row, names) for row in rows]
    competing = [number for number, row in enumerate(rows) if not row.entry.apart]
    labels = {row.entry.label for row in rows}
    gaps = [gap for gap in study_gaps(study) if gap.entry in labels]
    return Block(
        title=f"{rows[0].entry.name} by {field}, {study.label}",
        lines=tuple(with_best(lines, range(N_LABEL_COLUMNS, N_LABEL_COLUMNS + len(names)), competing)),
        notes=tuple(gap.note for gap in gaps),
        remarks=tuple(remarks(compared)),
        commands=as_few_commands(each for gap in gaps for each in gap.commands),
    )


def _line(study: Study, row: _Row, names: Sequence[str]) -> Line:
    entry = row.entry
    number = float(row.value) if isinstance(row.value, (int, float)) else None
    cells = [statistic_cell(entry.metrics.get(name)) for name in names]
    return Line(
        cells=(
            Cell(text=mark(row.series, entry) + (f", {APART}" if entry.apart else "")),
            Cell(text=row.shown, value=number),
            Cell(text=str(entry.n_cases), value=float(entry.n_cases)),
            *with_failures(cells, names, zsre=study.kind == "zsre"),
        ),
        model=study.model,
        dataset=study.dataset,
        editors=(entry.name,),
    )


def _record(study: Study, row: _Row, field: str, names: Sequence[str]) -> Mapping[str, Any]:
    """A line of the CSV file. `setting` and `value` are written as on the command line, so null is `null` here."""
    record: dict[str, Any] = {
        "model": study.model,
        "study": study.label,
        "editor": row.entry.editor,
        "series": row.series,
        "setting": field,
        "value": shown_value(row.value),
        "cases": row.entry.n_cases,
        "settings_not_tuned": ", ".join(row.entry.not_tuned),
    }
    for name in names:
        statistic = row.entry.metrics.get(name) or {}
        low, high = interval_of(statistic)
        record |= {name: statistic.get("mean"), f"{name}_low": low, f"{name}_high": high}
    return record
