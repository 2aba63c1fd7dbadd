"""What a tracker is told at the end of a run of edits: texts of some cases, and pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from romexp.results.rows import CaseResult
from romexp.tracking import TrackedRun

if TYPE_CHECKING:  # importing matplotlib takes long
    from matplotlib.figure import Figure

    from romexp.results.find import FoundRun

TEXTS = ("case_id", "target_new", "prompt", "pre/text", "post/text")


def report_texts(tracked: TrackedRun, results: Iterable[CaseResult], sample: Collection[int]) -> None:
    """Add a table of what the model writes before and after the edits of a sample of cases; none if it wrote nothing.

    It has a line for each text. A text begins with its prompt.
    """
    rows = []
    for result in sorted((each for each in results if each.case_id in sample), key=lambda each: each.case_id):
        before, after = ((result.measured(side) or {}).get("text") or () for side in ("pre", "post"))  # type: ignore[arg-type]
        prompts = result.prompts.get("generation_prompts") or [""] * len(after)
        about = (result.case_id, result.request.target_new)
        rows += [[*about, *texts] for texts in zip(prompts, before, after, strict=False)]
    if rows:
        tracked.table("texts", TEXTS, rows)


def report_boxes(tracked: TrackedRun, frame: pd.DataFrame, *, editor: str, label: str, title: str) -> None:
    """Add box plots of the cases (Fig. 24), if the tracker shows pictures.

    Args:
        editor: the editor's option name, which has a colour.
        label: its label.
    """
    if not tracked.takes_images:
        return
    from romexp.reporting.figures.editors import case_boxes
    from romexp.reporting.figures.style import editor_color

    figure = case_boxes({label: frame}, colors={label: editor_color(editor)}, title=title)
    _report(tracked, [("boxes", figure)] if figure is not None else [])


def report_sequence(tracked: TrackedRun, run: FoundRun) -> None:
    """Add the figures of one sequence of edits: scores, retention and collapse, if the tracker shows pictures."""
    if not tracked.takes_images:
        return
    from romexp.analysis.lifelong_studies import lifelong_studies
    from romexp.reporting.figures.lifelong import lifelong_drawings

    studies, _ = lifelong_studies([run])
    _report(tracked, [(name, figure) for study in studies for name, _, figure in lifelong_drawings(study)])


def _report(tracked: TrackedRun, figures: Iterable[tuple[str, Figure]]) -> None:
    """Results on disk do not depend on the tracker, so that the pictures are drawn into a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, figure in figures:
            paths[name] = Path(folder) / f"{name}.png"
            figure.savefig(paths[name], dpi=150, bbox_inches="tight")
        tracked.images(paths)
