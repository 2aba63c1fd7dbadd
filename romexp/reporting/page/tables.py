"""Tables of the page: measured values with links to the runs of each row, and the tables of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from romexp.analysis.studies import Entry, Study
from romexp.analysis.summary import UNEDITED, Statistics
from romexp.reporting.tables.model import Cell, Line, ReportTable, statistic_cell, with_best, with_failures
from romexp.reporting.tables.remarks import remarks, shown_label

MARKS = {"failure": "clear failure", "best": "highest", "strong": "interval excludes 0"}
"""The meaning of a cell's colour or bold type, as text for screen readers."""


def study_table(
    study: Study,
    *,
    identifier: str,
    run_ids: Mapping[str, str],
    heading: tuple[str, str],
    measured: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Values of a study for the template: a row for the unedited model, then one for each entry.

    Args:
        identifier: id of the table's HTML element.
        run_ids: id of each run's HTML element, by the run's folder.
        heading: what the study is called, and its number of cases in words.
        measured: number of all measured cases of each entry, by label, where the study was cut to fewer.
    """
    rows = [_row(study, entry, run_ids, (measured or {}).get(entry.label)) for entry in study.entries]
    compared = [i for i, entry in enumerate(study.entries) if entry.edits and not entry.apart]
    return {
        "id": identifier,
        "label": heading[0],
        "model": study.model,
        "dataset": study.dataset,
        "cases": heading[1],
        "columns": study.columns,
        "notes": remarks(study),
        "rows": [_unedited(study), *_with_best(rows, compared)],
    }


def paper_table(table: ReportTable, *, identifier: str, unfolded: bool) -> dict[str, Any]:
    """Values of a report's table for the template. Neighbouring columns with an equal heading share one cell for it.

    Args:
        identifier: id of the table's HTML element.
        unfolded: show the table unfolded; a table with published values always is.
    """
    headings = [(heading, len(list(same))) for heading, same in groupby(column.heading for column in table.columns)]
    published = any(line.role == "published" for block in table.blocks for line in block.lines)
    return {
        "id": identifier,
        "open": unfolded or published,
        "title": table.title,
        "caption": table.caption,
        "headings": headings,
        "columns": table.columns,
        "blocks": table.blocks,
    }


def _unedited(study: Study) -> dict[str, Any]:
    cells, count = _cells(study, study.unedited["pre"], edited=False), study.unedited["n_cases"]
    return {"label": UNEDITED, "editors": [], "cells": cells, "n_cases": count, "expected": None, "links": []}


def _row(study: Study, entry: Entry, run_ids: Mapping[str, str], measured: int | None) -> dict[str, Any]:
    expected = entry.runs[0].expected if len(entry.runs) == 1 else None
    links = [
        {
            "id": run_ids[str(run.path)],
            "title": f"where this row comes from: {run.path.name}",
            "text": str(run.manifest.get("hash", run.path.name))[:6]
            + ("" if run.status == "done" else f" ({run.status or 'no status'})"),
        }
        for run in entry.runs
        if str(run.path) in run_ids
    ]
    return {
        "label": shown_label(entry),
        "editors": [entry.name],
        "cells": _cells(study, entry.metrics, edited=entry.edits),
        "n_cases": entry.n_cases,
        "expected": max((count for count in (expected, measured) if count is not None), default=None),
        "links": links,
    }


def _with_best(rows: Sequence[Mapping[str, Any]], among: Sequence[int]) -> list[dict[str, Any]]:
    """Mark the highest value of each column, of the rows that are compared."""
    lines = with_best([Line(cells=tuple(row["cells"])) for row in rows], range(len(rows[0]["cells"])), among)
    return [{**row, "cells": list(line.cells)} for row, line in zip(rows, lines, strict=True)]


def _cells(study: Study, side: Mapping[str, Statistics], *, edited: bool) -> list[Cell]:
    cells = [statistic_cell(side.get(name)) for name in study.columns]
    return with_failures(cells, study.columns, zsre=study.kind == "zsre") if edited else cells


def distinct(values: Sequence[str]) -> list[str]:
    """The values without repetitions and without empty ones, in order of first appearance."""
    return [value for value in dict.fromkeys(values) if value]
