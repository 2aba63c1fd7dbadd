"""A sweep as a table: metrics by the value of one setting, a series for each combination of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from romexp.analysis.metrics import columns_of
from romexp.analysis.missing import study_gaps
from romexp.analysis.studies import Entry, Study
from romexp.analysis.summary import interval_of
from romexp.analysis.sweeps import LAYER
from romexp.reporting.tables.model import (
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
from romexp.results.settings import ABSENT, short, shown_value, sort_key

CAPTION = (
    "In parentheses: half-width of the 95 % interval; S is given with its bootstrap interval. Green, bold: the sweep's "
    "highest value of a column. Red: a clear failure, by the paper's thresholds."
)
COLUMNS = 3
"""Columns before the metrics: series, value, cases."""


def swept_field(entries: Sequence[Entry], x: str | None = None) -> str | None:
    """The setting that the entries of one editor are a sweep over: `x`, else the layer, else the one of most values.

    None where it has one value.
    """
    values: dict[str, set[str]] = {}
    for entry in entries:
        for name, value in entry.distinct.items():
            values.setdefault(name, set()).add(repr(value))
    if x is not None:
        return x if len(values.get(x, ())) > 1 else None
    return LAYER if LAYER in values else max(values, key=lambda name: len(values[name]), default=None)


def sweep_table(studies: Sequence[Study], *, x: str | None = None) -> ReportTable:
    """A block for each editor that was run with several values of the setting.

    Args:
        x: dotted name of the setting, as `editor.norm_constraint`; None chooses by `swept_field`.
    """
    blocks, records = [], []
    kinds = dict.fromkeys(study.kind for study in studies if any(_sweeps(study, x)))
    names = tuple(dict.fromkeys(name for kind in kinds for name in columns_of(kind)))
    for study in studies:
        for entries, field in _sweeps(study, x):
            ordered = sorted(entries, key=lambda entry: _place(entry, field))
            lines = tuple(_line(study, entry, field, names) for entry in ordered)
            lines = tuple(with_best(lines, range(COLUMNS, COLUMNS + len(names)), range(len(lines))))
            labels = {entry.label for entry in entries}
            gaps = [gap for gap in study_gaps(study) if gap.entry in labels]
            blocks.append(
                Block(
                    title=f"{entries[0].name} by {field}, {study.label}",
                    lines=lines,
                    notes=tuple(gap.note for gap in gaps),
                    commands=tuple(dict.fromkeys(each for gap in gaps for each in gap.commands)),
                )
            )
            records += [_record(study, entry, field, names) for entry in ordered]
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


def _sweeps(study: Study, x: str | None) -> list[tuple[list[Entry], str]]:
    """Each editor's entries with the field that they are a sweep over."""
    found = [(entries, swept_field(entries, x)) for entries in study.by_editor.values()]
    return [(entries, field) for entries, field in found if field is not None]


def series_label(entry: Entry, field: str) -> str:
    """What else tells the entry from the others: `fact_token=last`; the editor's name where nothing does."""
    rest = {name: value for name, value in entry.distinct.items() if name != field}
    return short(rest) or entry.name


def _place(entry: Entry, field: str) -> tuple[Any, ...]:
    rest = [sort_key(value) for name, value in entry.distinct.items() if name != field]
    return (*rest, sort_key(entry.distinct.get(field, ABSENT)))


def _line(study: Study, entry: Entry, field: str, names: Sequence[str]) -> Line:
    value = entry.distinct.get(field, ABSENT)
    number = float(value) if isinstance(value, (int, float)) else None
    cells = [statistic_cell(entry.metrics.get(name)) for name in names]
    return Line(
        cells=(
            Cell(text=series_label(entry, field)),
            Cell(text=shown_value(value), value=number),
            Cell(text=str(entry.n_cases), value=float(entry.n_cases)),
            *with_failures(cells, names, zsre=study.kind == "zsre"),
        ),
        model=study.model,
        dataset=study.dataset,
        editors=(entry.name,),
    )


def _record(study: Study, entry: Entry, field: str, names: Sequence[str]) -> Mapping[str, Any]:
    record: dict[str, Any] = {
        "model": study.model,
        "study": study.label,
        "editor": entry.editor,
        "series": series_label(entry, field),
        "setting": field,
        "value": shown_value(entry.distinct.get(field, ABSENT)),
        "cases": entry.n_cases,
    }
    for name in names:
        statistic = entry.metrics.get(name) or {}
        low, high = interval_of(statistic)
        record |= {name: statistic.get("mean"), f"{name}_low": low, f"{name}_high": high}
    return record
