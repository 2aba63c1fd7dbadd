"""Every figure that studies allow (docs/method.md §6): sweeps, editors side by side, boxes. PDF and PNG."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from romexp.analysis.studies import Entry, Study
from romexp.analysis.sweeps import SweepAxis, sweep_axis
from romexp.reporting.figures.editors import case_boxes, editor_bars
from romexp.reporting.figures.style import editor_color, write_figure
from romexp.reporting.figures.sweeps import sweep_figure
from romexp.results.settings import free_name

MOST_BARS = 16
"""Entries in one chart; an editor's sweep has a figure of its own."""

Drawing = tuple[str, str, Figure]
"""What a figure shows (`sweep_rome`), a sentence about it, and the figure."""


def draw_all(studies: Sequence[Study], folder: Path, *, x: str | None = None) -> list[Path]:
    """Draw and write every figure: `<folder>/<model>_<dataset>_<what>.pdf` and `.png`, byte-identical when repeated.

    The sentence about a figure travels in its PNG as `Description`.

    Args:
        x: dotted name of the setting that sweeps run over; None leaves the choice to `sweep_axis`.
    """
    paths: list[Path] = []
    taken: set[str] = set()
    for study in studies:
        base = free_name(_slug(f"{study.model}_{study.dataset}"), taken, "_")
        for what, caption, figure in drawings(study, x=x):
            paths += write_figure(figure, folder / f"{base}_{_slug(what)}", caption=caption)
    return paths


def drawings(study: Study, *, x: str | None = None) -> Iterator[Drawing]:
    """A study's figures, most general first. `editor=none` beside others is left out: the unedited model is there."""
    swept = {editor: entries for editor, entries in study.by_editor.items() if _axis(entries, x) is not None}
    compared = [entry for entry in study.entries if entry.edits] or list(study.entries)
    if len(compared) > MOST_BARS:
        compared = [entry for entry in compared if entry.editor not in swept]
    if 0 < len(compared) <= MOST_BARS:
        yield from _comparison(study, compared)
    for editor, entries in swept.items():
        yield from _sweep(study, editor, entries, x)


def _comparison(study: Study, entries: Sequence[Entry]) -> Iterator[Drawing]:
    where = f"{study.label}, {_cases(entries)}"
    sides = {entry.label: entry.metrics for entry in entries}
    colors = {entry.label: editor_color(entry.editor) for entry in entries}
    caption = f"Editors on {where}; whiskers are 95 % intervals."
    yield "editors", caption, editor_bars(sides, before=study.unedited["pre"], colors=colors, title=caption)
    caption = f"Distribution over cases after the edit, {where}; white dots are means."
    figure = case_boxes({entry.label: entry.frame for entry in entries}, colors=colors, title=caption)
    if figure is not None:
        yield "cases", caption, figure
    pair = {entry.label: entry.frame for entry in entries if entry.editor in ("rome", "ft_attn")}
    if len(entries) > len(pair) and {entry.editor for entry in entries} >= {"rome", "ft_attn"}:
        caption = f"ROME and AttnEdit, distribution over cases, {where}; white dots are means."
        figure = case_boxes(pair, colors=colors, title=caption)
        if figure is not None:
            yield "rome_attnedit", caption, figure


def _sweep(study: Study, editor: str, entries: Sequence[Entry], x: str | None) -> Iterator[Drawing]:
    axis = _axis(entries, x)
    if axis is not None:
        name = entries[0].name
        caption = f"{name} by {axis.title}, {study.label}, {_cases(entries)}; bands are 95 % intervals."
        figure = sweep_figure(
            axis,
            [entry.metrics for entry in entries],
            before=study.unedited["pre"],
            single=(name, editor_color(editor)),
            title=caption,
        )
        yield f"sweep_{editor}", caption, figure


def _axis(entries: Sequence[Entry], x: str | None) -> SweepAxis | None:
    return sweep_axis([entry.distinct for entry in entries], x=x)


def _cases(entries: Sequence[Entry]) -> str:
    counts = sorted({entry.n_cases for entry in entries})
    if counts == [1]:
        return "1 case"
    return f"{counts[0]} cases" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} cases"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._") or "_"
