"""Writes the page of results: one HTML file that makes no network requests, and files with further cases beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from romexp.analysis.shared_cases import on_shared_cases
from romexp.analysis.studies import Study
from romexp.files import write_text
from romexp.reporting.figures.style import TITLES
from romexp.reporting.html import render
from romexp.reporting.page.case_files import SAMPLE, write_cases
from romexp.reporting.page.featured import featured_case
from romexp.reporting.page.figures import PageFigure, picture, study_figures
from romexp.reporting.page.headings import case_count, study_heading, study_name, trace_name
from romexp.reporting.page.leaders import leaders, leading_first, trace_headline
from romexp.reporting.page.runs import describe_run, run_ids
from romexp.reporting.page.tables import MARKS, distinct, paper_table, study_table
from romexp.reporting.page.traces import REPLACED, single_facts, trace_figures
from romexp.reporting.tables.model import REACH_EXPLAINED, ReportTable
from romexp.reporting.tables.traces import TraceStudy
from romexp.results.find import FoundRun

TEMPLATE = Path(__file__).parent / "templates" / "page.html"
SCRIPTS = (
    "page.js",
    "page_cut.js",
    "page_heat.js",
    "page_store.js",
    "page_change.js",
    "page_cases.js",
    "page_start.js",
)
STYLES = ("page_top.css", "page_figures.css", "page_cases.css")
WIDE = 600
"""On a phone, pictures wider than this many pixels are scrolled instead of shrunk."""


def write_page(
    studies: Sequence[Study],
    tables: Sequence[ReportTable],
    figures: Sequence[Path],
    path: Path,
    *,
    others: Sequence[FoundRun] = (),
    traces: Sequence[TraceStudy] = (),
    problems: Sequence[str] = (),
    most_cases: int = SAMPLE,
    shared: bool = True,
    draw: bool = False,
    x: str | None = None,
) -> Path:
    """Write the page, and beside it a folder with further cases if there are more than it holds.

    Equal input gives byte-identical files.

    Args:
        studies: their entries become sortable tables, their cases can be browsed.
        tables: the report's tables, with published values where it has them.
        figures: files; those that end in `.png` are embedded, with the caption in their metadata.
        path: file to write. The folder beside it is called `<its stem>_cases`.
        others: runs of other tasks, such as traces; they are shown with the pictures in their folders.
        traces: their averages and first facts are drawn.
        problems: one line for each run that could not be used.
        most_cases: most cases of one study that the page itself holds; it also shows their number.
        shared: show the editors of a study on the cases that they share.
        draw: draw the studies' editors and sweeps.
        x: dotted name of the setting on the x axis of sweeps; None lets `sweep_axis` choose it.

    Returns:
        `path`.
    """
    pairs = leading_first([(study, on_shared_cases(study) if shared else study) for study in studies])
    drawn = _drawn(pairs, traces, draw=draw, x=x, shared=shared)
    pictures, damaged = _pictures(figures, others, traces)
    origins = _origins([study for study, _ in pairs], others)
    ids = run_ids([run for run, _, _ in origins])
    best = pairs[0] if pairs and any(entry.edits for entry in pairs[0][0].entries) else None
    content: dict[str, list[Any]] = {
        "results": _results(pairs, ids),
        "tables": [paper_table(t, identifier=f"table-{i}", unfolded=len(tables) == 1) for i, t in enumerate(tables)],
        "figures": [*drawn, *pictures],
        "cases": _cases(pairs, path.with_name(f"{path.stem}_cases"), sample=most_cases),
        "runs": [describe_run(run, identifier=ids[str(run.path)], label=name, group=of) for run, name, of in origins],
    }
    top = {
        "leaders": leaders(*best) if best else None,
        "traced": [(trace_name(trace), trace_headline(trace.summary)) for trace in ([] if best else traces[:1])],
        "featured": featured_case(*best) if best else None,
        "featured_study": _digest(best[0]) if best else "",
    }
    about = _about([run for run, _, _ in origins]) | {"problems": [*problems, *damaged]}
    beside = any("held" in study for study in content["cases"])
    values = {**_template_values(content), **about, **content, **top}
    page = render(TEMPLATE, SCRIPTS, styles=STYLES, scripts_beside=beside, data=content["cases"], **values)
    write_text(path, page)
    return path


def _results(pairs: Sequence[tuple[Study, Study]], ids: Mapping[str, str]) -> list[Any]:
    """A table of the editors of each study."""
    return [
        study_table(
            compared,
            identifier=f"study-{_digest(study)}",
            run_ids=ids,
            heading=(study_name(study), case_count(study, compared)),
            measured={entry.label: entry.n_cases for entry in study.entries},
        )
        for study, compared in pairs
    ]


def _cases(pairs: Sequence[tuple[Study, Study]], folder: Path, *, sample: int) -> list[dict[str, Any]]:
    return [
        write_cases(
            study,
            identifier=_digest(study),
            label=study_heading(study, compared),
            folder=folder,
            share=1 / len(pairs),
            sample=sample,
            compared=compared,
        )
        for study, compared in pairs
    ]


def _drawn(
    pairs: Sequence[tuple[Study, Study]], traces: Sequence[TraceStudy], *, draw: bool, x: str | None, shared: bool
) -> list[PageFigure]:
    """Figures that the page draws itself."""
    figures: list[PageFigure] = []
    for study, compared in pairs if draw else ():
        heading = study_heading(study, compared)
        figures += study_figures(study, heading=heading, identifier=_digest(study), x=x, shared=shared)
    for number, trace in enumerate(traces):
        figures += trace_figures(trace, heading=trace_name(trace), identifier=f"trace{number}")
    return figures


def _pictures(
    figures: Sequence[Path], others: Sequence[FoundRun], traces: Sequence[TraceStudy]
) -> tuple[list[PageFigure], list[str]]:
    """Pictures that were drawn elsewhere, and a line for each file that is none."""
    shown = [picture(file) for file in figures if file.suffix == ".png"]
    damaged: list[str] = []
    averaged = {str(run.path) for trace in traces for run in trace.runs}
    for run in others:
        own = [] if str(run.path) in averaged or run.task != "trace" else list(single_facts(run))
        shown += own
        replaced = REPLACED if str(run.path) in averaged else REPLACED[-1:] if own else ()
        for file in sorted((run.path / "figures").glob("*.png")):
            if file.stem.startswith(tuple(replaced)):
                continue
            try:
                shown.append(picture(file, of=run))
            except (OSError, ValueError, SyntaxError) as error:  # Pillow says SyntaxError of a broken PNG
                damaged.append(f"{file}: not a picture ({error})")
    return shown, damaged


def _about(runs: Sequence[FoundRun]) -> dict[str, Any]:
    """The choices of the filters, and the time at which the last run ended."""
    return {
        "models": distinct([str(run.names.get("model", "")) for run in runs]),
        "datasets": distinct([str(run.names.get("dataset", "")) for run in runs]),
        "editors": distinct([run.editor_label for run in runs]),
        "latest": max((run.finished_at for run in runs), default="")[:16].replace("T", " "),
    }


def _template_values(content: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Constants of the template, and the sections that have content."""
    names = {"results": "Results", "tables": "Tables", "figures": "Figures", "cases": "Cases", "runs": "Runs"}
    return {
        "title": "romexp results",
        "sections": [(key, name) for key, name in names.items() if content[key]],
        "metric_titles": TITLES,
        "marks": MARKS,
        "reach_explained": REACH_EXPLAINED,
        "wide": WIDE,
    }


def _origins(studies: Sequence[Study], others: Sequence[FoundRun]) -> list[tuple[FoundRun, str, str]]:
    """Every run once, with the labels of its row and its study."""
    origins = [
        (run, entry.label, study_name(study)) for study in studies for entry in study.entries for run in entry.runs
    ]
    for run in others:
        names = " on ".join(str(run.names[key]) for key in ("model", "dataset") if run.names.get(key))
        origins.append((run, run.editor_label or run.task, f"{run.task} of {names}" if names else run.task))
    return list({str(origin[0].path): origin for origin in origins}.values())


def _digest(study: Study) -> str:
    """A short id for addresses of views; it does not depend on the other studies of the page."""
    what = json.dumps([study.model, study.dataset, study.identity], sort_keys=True, default=str)
    return hashlib.sha256(what.encode()).hexdigest()[:8]
