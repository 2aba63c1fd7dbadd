"""Writes the page of results: one HTML file that holds everything and makes no network requests."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from romexp.analysis.shared_cases import on_shared_cases
from romexp.analysis.studies import Study
from romexp.files import write_text
from romexp.reporting.figures.style import TITLES
from romexp.reporting.html import render
from romexp.reporting.page.cases import case_data
from romexp.reporting.page.runs import describe_run, run_ids
from romexp.reporting.page.tables import MARKS, distinct, paper_table, study_table
from romexp.reporting.tables.model import REACH_EXPLAINED, ReportTable
from romexp.results.find import FoundRun

TEMPLATE = Path(__file__).parent / "templates" / "page.html"
SCRIPTS = ("page.js", "page_cases.js", "page_start.js")
MOST_CASES = 100
"""Most cases of one study that a page holds."""
DPI = 160
"""Resolution of the figures, which the page shows in their size on paper."""
WIDE = 600
"""On a phone, figures wider than this many pixels are scrolled instead of shrunk."""


def write_page(
    studies: Sequence[Study],
    tables: Sequence[ReportTable],
    figures: Sequence[Path],
    path: Path,
    *,
    others: Sequence[FoundRun] = (),
    problems: Sequence[str] = (),
    most_cases: int = MOST_CASES,
    shared: bool = True,
) -> Path:
    """Write the page into one file; equal input gives a byte-identical file.

    Args:
        studies: their entries become sortable tables, their cases can be browsed.
        tables: the report's tables, with published values where it has them.
        figures: files; those that end in `.png` are embedded, with the caption in their metadata.
        path: file to write.
        others: runs of other tasks, such as traces; they are shown with the figures in their folders.
        problems: one line for each run that could not be used.
        most_cases: most cases of one study that the page holds; it also shows their number.
        shared: show the editors of a study on the cases that they share.

    Returns:
        `path`.
    """
    pictures = [_figure(file) for file in figures if file.suffix == ".png"]
    damaged: list[str] = []
    for run in others:
        for file in sorted((run.path / "figures").glob("*.png")):
            try:
                pictures.append(_figure(file, of=run))
            except (OSError, ValueError, SyntaxError) as error:  # Pillow says SyntaxError of a broken PNG
                damaged.append(f"{file}: not a picture ({error})")
    origins = _origins(studies, others)
    ids = run_ids([run for run, _, _ in origins])
    compared = [on_shared_cases(study) for study in studies] if shared else studies
    content = {
        "results": [
            study_table(
                s,
                identifier=f"study-{_digest(s)}",
                run_ids=ids,
                measured={entry.label: entry.n_cases for entry in whole.entries},
            )
            for s, whole in zip(compared, studies, strict=True)
        ],
        "tables": [paper_table(t, identifier=f"table-{i}", unfolded=len(tables) == 1) for i, t in enumerate(tables)],
        "figures": pictures,
        "cases": [
            case_data(whole, identifier=_digest(s), most_cases=most_cases, compared=s)
            for s, whole in zip(compared, studies, strict=True)
        ],
        "runs": [describe_run(run, identifier=ids[str(run.path)], label=name, group=of) for run, name, of in origins],
    }
    about = _about([run for run, _, _ in origins]) | {"problems": [*problems, *damaged]}
    write_text(path, render(TEMPLATE, SCRIPTS, data=content["cases"], **_template_values(content), **about, **content))
    return path


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


def _figure(path: Path, *, of: FoundRun | None = None) -> dict[str, Any]:
    """A PNG as a data URL. It is reduced to 256 colours: a third of the size, without a visible difference.

    Args:
        of: the run that the figure shows, for its caption.
    """
    with Image.open(path) as image:
        description = image.info.get("Description")
        caption = str(description or path.stem.replace("_", " "))
        width, height = (round(pixels * 96 / DPI) for pixels in image.size)
        colours = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    packed = BytesIO()
    colours.save(packed, "PNG", optimize=True)
    if of is not None:
        # A caption in the metadata names the model itself.
        model = "" if description else f"{of.names.get('model', '')}, "
        caption = f"{of.names.get('task', '')} of {model}{of.names.get('dataset', '')}: {caption}"
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    return {"caption": caption, "data": f"data:image/png;base64,{data}", "width": width, "height": height}


def _origins(studies: Sequence[Study], others: Sequence[FoundRun]) -> list[tuple[FoundRun, str, str]]:
    """Every run once, with the labels of its row and its study."""
    origins = [(run, entry.label, study.label) for study in studies for entry in study.entries for run in entry.runs]
    for run in others:
        names = ", ".join(str(run.names[key]) for key in ("model", "dataset") if run.names.get(key))
        origins.append((run, run.editor_label or run.task, f"{names}, {run.task}"))
    return list({str(origin[0].path): origin for origin in origins}.values())


def _digest(study: Study) -> str:
    """A short id for addresses of views; it does not depend on the other studies of the page."""
    what = json.dumps([study.model, study.dataset, study.identity], sort_keys=True, default=str)
    return hashlib.sha256(what.encode()).hexdigest()[:8]
