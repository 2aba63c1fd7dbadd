"""Sequences of edits as a table: right after each step and at the end, with AlphaEdit's columns
(docs/method.md §13.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from romexp.analysis.lifelong_studies import LifelongEntry, LifelongStudy
from romexp.analysis.metrics import columns_of
from romexp.analysis.missing import continuing
from romexp.analysis.published_lifelong import published_sequences
from romexp.analysis.summary import UNEDITED, Statistics
from romexp.reporting.tables.model import (
    REACH_EXPLAINED,
    Block,
    Cell,
    Column,
    Line,
    ReportTable,
    fixed,
    metric_columns,
    statistic_cell,
    with_failures,
)

CAPTION = (
    "Right after: each case after its own step. At the end: all cases after the last step. The unedited model is the "
    f"original one. {REACH_EXPLAINED}"
)
PARTS: Mapping[str, str] = {"immediate": "right after", "final": "at the end"}


def lifelong_report(studies: Sequence[LifelongStudy]) -> ReportTable:
    """One block for each study: the unedited model, and two lines for each editor, with the published values of the end
    below if model, data and numbers of edits are theirs.
    """
    metrics = _metrics(studies)
    return ReportTable(
        name="lifelong",
        title="Sequences of edits",
        columns=(
            Column(name="Editor", numeric=False),
            Column(name="Measured", numeric=False),
            Column(name="Edits"),
            *metric_columns(metrics),
        ),
        blocks=tuple(_block(study, metrics) for study in studies),
        caption=CAPTION,
        records=tuple(record for study in studies for record in _records(study)),
    )


def _metrics(studies: Sequence[LifelongStudy]) -> list[str]:
    """The metrics that some entry has, in the paper's order. Magnitudes are only in the CSV file."""
    sides = [entry.summary.get(part, {}) for study in studies for entry in study.entries for part in ("pre", "final")]
    names = dict.fromkeys((*columns_of("counterfact"), *columns_of("zsre")))
    names = {name: None for name in names if name not in ("EM", "PM", "NM")}
    return [name for name in names if any(side.get(name, {}).get("mean") is not None for side in sides)]


def _block(study: LifelongStudy, metrics: Sequence[str]) -> Block:
    zsre = "Efficacy" in metrics
    pre = max((entry.summary for entry in study.entries), key=lambda summary: summary["n_cases"])["pre"]
    edits = max(entry.summary["n_edits"] for entry in study.entries)
    published = published_sequences(model=study.model, dataset=study.dataset, edits=edits, step=study.step)

    def line(label: str, measured: str, edits: str, side: Mapping[str, Statistics], editors: tuple[str, ...]) -> Line:
        cells = [statistic_cell(side.get(name)) for name in metrics]
        marked = with_failures(cells, metrics, zsre=zsre) if editors else cells
        first = (Cell(text=label), Cell(text=measured), Cell(text=edits))
        return Line(cells=(*first, *marked), model=study.model, dataset=study.dataset, editors=editors)

    lines = [line(UNEDITED, "", "", pre, ()), *_published(published, "none", metrics, study)]
    for entry in study.entries:
        for part, said in PARTS.items():
            edits, side = _side(entry, part)
            if side:
                lines.append(line(entry.label, said, str(edits), side, (entry.label,)))
        lines += _published(published, entry.editor, metrics, study)
    unfinished = [entry for entry in study.entries if entry.run.status != "done"]
    stopped = [(entry, entry.run.manifest["stopped"]) for entry in study.entries if entry.run.manifest.get("stopped")]
    return Block(
        title=study.label,
        lines=tuple(lines),
        notes=tuple(f"{entry.label}: not finished, its end is the last checkpoint so far" for entry in unfinished),
        remarks=(
            *(f"{entry.label}: stopped after {why['edits']} edits: {why['reason']}" for entry, why in stopped),
            *(remark for entry in study.entries for remark in _remarks(entry)),
        ),
        commands=tuple(command for entry in unfinished for command in continuing([entry.run])),
    )


def _side(entry: LifelongEntry, part: str) -> tuple[int, Mapping[str, Statistics]]:
    """Number of edits and statistics of one part. In place of the end, which an unfinished run has not reached, stands
    the last time at which all cases so far were measured.
    """
    if part == "immediate" or entry.run.status == "done":
        return entry.summary["n_edits"], entry.summary.get(part, {})
    last: Mapping[str, Any] = entry.by_edits[-1] if entry.by_edits else {"edits": 0, "post": {}}
    return last["edits"], last["post"]


def _published(
    published: Mapping[str, Mapping[str, float]], editor: str, metrics: Sequence[str], study: LifelongStudy
) -> list[Line]:
    """The printed values of an editor, as a line below its own."""
    if editor not in published:
        return []
    values = published[editor]
    cells = [
        Cell(text=fixed(values[name]), value=values[name]) if name in values else Cell(text="–") for name in metrics
    ]
    first = (Cell(text="AlphaEdit's paper"), Cell(text="" if editor == "none" else "at the end"), Cell(text=""))
    return [Line(cells=(*first, *cells), role="published", below=True, model=study.model, dataset=study.dataset)]


def _remarks(entry: LifelongEntry) -> Iterator[str]:
    if entry.run.settings_not_tuned:
        yield f"{entry.label}: settings not tuned for this model"
    if entry.run.set_aside:
        yield f"{entry.label}: {len(entry.run.set_aside)} cases could not be edited or measured"


def _records(study: LifelongStudy) -> Iterator[dict[str, Any]]:
    """One record for each editor, time and metric, with all times at which all cases so far were measured."""
    for entry in study.entries:
        base = {"study": study.label, "editor": entry.label}
        times = [(f"after {point['edits']}", point["edits"], point["post"]) for point in entry.by_edits]
        parts = [("unedited", 0, entry.summary["pre"])]
        parts += [(part, entry.summary["n_edits"], entry.summary[part]) for part in PARTS if part in entry.summary]
        for measured, edits, side in (*parts, *times):
            for metric, statistics in side.items():
                yield {**base, "measured": measured, "edits": edits, "metric": metric, "mean": statistics.get("mean"),
                       "half_width": statistics.get("half_width"), "n": statistics.get("n")}  # fmt: skip
