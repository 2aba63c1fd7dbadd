"""Rows of one of the paper's tables: measured values, published values and differences, as lines and flat records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from romexp.analysis.intervals import half_width_of, interval_of
from romexp.analysis.metrics import Kind, columns_of
from romexp.analysis.published import PublishedRow, PublishedValue
from romexp.analysis.studies import Entry, Study, edits
from romexp.analysis.summary import UNEDITED, Statistics
from romexp.reporting.tables.model import Cell, Line, fixed, statistic_cell, with_best, with_failures
from romexp.reporting.tables.remarks import shown_label

N_LABEL_COLUMNS = 2
"""Number of columns before the metrics: the editor, the number of cases."""


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One editor, or the unedited model, on one model.

    Attributes:
        model: the model's name.
        study: the study's label; empty if there is no run.
        label: the row's label.
        editor: the editor's option name; empty for the unedited model.
        dataset: the data set's option name.
        name: the editor's own label, such as `FT+L`; empty for the unedited model.
        cases: number of measured cases; None if there is no run.
        metrics: measured statistics; None if there is no run.
        published: the paper's row, if it may be compared with the measured one or there is no run.
        records: the paper's number of cases.
        not_tuned: the editor's settings that are another model's.
        apart: its cases are not those of the other rows, so that it does not compete with them.
    """

    model: str
    label: str
    editor: str
    dataset: str = ""
    name: str = ""
    study: str = ""
    cases: int | None = None
    metrics: Mapping[str, Statistics] | None = None
    published: PublishedRow | None = None
    records: int | None = None
    not_tuned: Sequence[str] = ()
    apart: bool = False


def measured_row(study: Study, entry: Entry, *, published: PublishedRow | None, records: int | None) -> PaperRow:
    """The row of an editor."""
    return PaperRow(
        model=study.model,
        study=study.label,
        label=shown_label(entry),
        editor=entry.editor,
        dataset=study.dataset,
        name=entry.name,
        cases=entry.n_cases,
        metrics=entry.metrics,
        published=published,
        records=records,
        not_tuned=tuple(entry.not_tuned),
        apart=entry.apart,
    )


def unedited_row(study: Study, *, published: PublishedRow | None, records: int | None) -> PaperRow:
    """The row of the unedited model."""
    return PaperRow(
        model=study.model,
        study=study.label,
        label=UNEDITED,
        editor="",
        dataset=study.dataset,
        cases=study.unedited["n_cases"],
        metrics=study.unedited["pre"],
        published=published,
        records=records,
    )


def lines_of(rows: Sequence[PaperRow], kind: Kind, *, as_paper: bool) -> tuple[Line, ...]:
    """Up to three lines for each row. The best measured and the best published value of each column are marked.

    Args:
        as_paper: show half-widths as the paper does.
    """
    lines: list[Line] = []
    competing: dict[str, list[int]] = {"measured": [], "published": []}
    for row in rows:
        for line in _lines(row, kind, as_paper=as_paper):
            competes = edits(row.editor) and not (row.apart and line.role == "measured")
            if competes and line.role in competing:
                competing[line.role].append(len(lines))
            editors = (row.name,) if row.name else ()
            lines.append(replace(line, model=row.model, dataset=row.dataset, editors=editors))
    width = N_LABEL_COLUMNS + len(columns_of(kind))
    for among in competing.values():
        lines = with_best(lines, range(N_LABEL_COLUMNS, width), among)
    return tuple(lines)


def _lines(row: PaperRow, kind: Kind, *, as_paper: bool) -> Iterator[Line]:
    names, zsre = columns_of(kind), kind == "zsre"
    if row.metrics is not None:
        cells = [statistic_cell(row.metrics.get(name), as_paper=as_paper) for name in names]
        cases = Cell(text=str(row.cases), value=float(row.cases or 0))
        yield Line(cells=(Cell(text=row.label), cases, *_marked(cells, names, row, zsre=zsre)))
    if row.published is not None:
        cells = [_published_cell(row.published.values.get(name)) for name in names]
        label = "published" if row.metrics is not None else f"{row.published.label}, published"
        cases = Cell(text=str(row.records), value=float(row.records or 0))
        shown = (Cell(text=label), cases, *_marked(cells, names, row, zsre=zsre))
        yield Line(cells=shown, role="published", below=row.metrics is not None)
    if row.metrics is not None and row.published is not None:
        cells = [_difference_cell(row.metrics.get(name), row.published.values.get(name)) for name in names]
        yield Line(cells=(Cell(text="difference"), Cell(text=""), *cells), role="difference", below=True)


def _marked(cells: Sequence[Cell], names: Sequence[str], row: PaperRow, *, zsre: bool) -> Sequence[Cell]:
    """Mark clear failures of editors. The unedited model has none, since it is not meant to know the new facts."""
    return with_failures(cells, names, zsre=zsre) if edits(row.editor) else cells


def _published_cell(value: PublishedValue | None) -> Cell:
    if value is None:
        return Cell(text="–")
    width = f" ({value.half_width})" if value.half_width is not None else ""
    return Cell(text=f"{fixed(value.mean)}{width}", value=value.mean)


def _difference_cell(ours: Statistics | None, theirs: PublishedValue | None) -> Cell:
    if ours is None or theirs is None or ours["mean"] is None:
        return Cell(text="–")
    difference = ours["mean"] - theirs.mean
    beyond = exceeds(ours, theirs)
    return Cell(text=fixed(difference, sign=True) + ("*" if beyond else ""), value=difference)


def exceeds(ours: Statistics, theirs: PublishedValue) -> bool:
    """Whether the means differ by more than √(a² + b²) + 0.05, with half-widths a, b and the paper's rounding 0.05."""
    half_width = half_width_of(ours)
    if half_width is None or theirs.half_width is None:
        return False
    return bool(abs(ours["mean"] - theirs.mean) > math.hypot(half_width, theirs.half_width) + 0.05)


def record_of(row: PaperRow, kind: Kind) -> dict[str, Any]:
    """The row's unrounded numbers; None where there is no number."""
    record: dict[str, Any] = {
        "model": row.model,
        "study": row.study,
        "label": row.label,
        "editor": row.editor,
        "cases": row.cases,
        "cases_published": row.records if row.published is not None else None,
        "settings_not_tuned": ", ".join(row.not_tuned),
    }
    for name in columns_of(kind):
        ours = (row.metrics or {}).get(name) or {}
        theirs = row.published.values.get(name) if row.published is not None else None
        low, high = interval_of(ours)
        mean = ours.get("mean")
        record |= {
            name: mean,
            f"{name}_low": low,
            f"{name}_high": high,
            f"{name}_half_width": half_width_of(ours),
            f"{name}_n": ours.get("n"),
            f"{name}_published": theirs.mean if theirs else None,
            f"{name}_published_half_width": theirs.half_width if theirs else None,
            f"{name}_difference": mean - theirs.mean if theirs and mean is not None else None,
        }
    return record
