"""Draws all figures of a report as PDF and PNG: sweeps, comparisons of editors, box plots (docs/method.md §6)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from romexp.analysis.shared_cases import on_shared_cases
from romexp.analysis.studies import Entry, Study
from romexp.analysis.sweeps import SweepAxis, sweep_axis
from romexp.reporting.figures.editors import case_boxes, editor_bars
from romexp.reporting.figures.style import editor_color, write_figure
from romexp.reporting.figures.sweeps import sweep_figure
from romexp.reporting.tables.remarks import not_tuned_notes, shown_label
from romexp.results.settings import free_name

MOST_BARS = 16
"""Most entries in one chart. If there are more, swept editors are left out, since they have figures of their own."""

Drawing = tuple[str, str, Figure]
"""Name of a figure, such as `sweep_rome`, its caption, and the figure."""


def draw_all(studies: Sequence[Study], folder: Path, *, x: str | None = None, shared: bool = True) -> list[Path]:
    """Draw every figure and write it to `<folder>/<model>_<dataset>_<name>.pdf` and `.png`.

    Equal input gives byte-identical files. The caption is stored in the PNG as `Description`.

    Args:
        x: dotted name of the setting on the x axis of sweeps; None lets `sweep_axis` choose it.
        shared: compare entries on the cases that they share.

    Returns:
        The files.
    """
    paths: list[Path] = []
    taken: set[str] = set()
    for study in studies:
        base = free_name(_slug(f"{study.model}_{study.dataset}"), taken, "_")
        for what, caption, figure in drawings(study, x=x, shared=shared):
            paths += write_figure(figure, folder / f"{base}_{_slug(what)}", caption=caption)
    return paths


def drawings(study: Study, *, x: str | None = None, shared: bool = True) -> Iterator[Drawing]:
    """A study's figures, most general first. `editor=none` is left out beside others: it equals the unedited model."""
    swept = swept_editors(study, x)
    compared = [entry for entry in study.entries if entry.edits] or list(study.entries)
    if len(compared) > MOST_BARS:
        compared = [entry for entry in compared if entry.editor not in swept]
    if 0 < len(compared) <= MOST_BARS:
        yield from _comparison(_together(study, compared, shared=shared))
    for editor, entries in swept.items():
        yield from _sweep(_together(study, entries, shared=shared), editor, x)


def swept_editors(study: Study, x: str | None) -> dict[str, list[Entry]]:
    """The entries of each editor that was swept, by its option name."""
    return {editor: entries for editor, entries in study.by_editor.items() if _axis(entries, x) is not None}


def _together(study: Study, entries: Sequence[Entry], *, shared: bool) -> Study:
    """A study of these entries, on the cases that they share."""
    part = replace(study, entries=tuple(entries))
    return on_shared_cases(part) if shared else part


def _comparison(study: Study) -> Iterator[Drawing]:
    entries = study.entries
    where = f"{study.label}, {_cases(entries)}{_not_tuned(entries)}"
    sides = {shown_label(entry): entry.metrics for entry in entries}
    colors = {shown_label(entry): editor_color(entry.editor) for entry in entries}
    caption = f"Editors on {where}; whiskers are 95 % intervals."
    yield "editors", caption, editor_bars(sides, before=study.unedited["pre"], colors=colors, title=caption)
    caption = f"Distribution over cases after the edit, {where}; white dots are means."
    figure = case_boxes({shown_label(entry): entry.frame for entry in entries}, colors=colors, title=caption)
    if figure is not None:
        yield "cases", caption, figure
    pair = {shown_label(entry): entry.frame for entry in entries if entry.editor in ("rome", "ft_attn")}
    if len(entries) > len(pair) and {entry.editor for entry in entries} >= {"rome", "ft_attn"}:
        caption = f"ROME and AttnEdit, distribution over cases, {where}; white dots are means."
        figure = case_boxes(pair, colors=colors, title=caption)
        if figure is not None:
            yield "rome_attnedit", caption, figure


def _sweep(study: Study, editor: str, x: str | None) -> Iterator[Drawing]:
    entries = study.entries
    axis = _axis(entries, x)
    if axis is not None:
        name = entries[0].name
        caption = (
            f"{name} by {axis.title}, {study.label}, {_cases(entries)}{_not_tuned(entries)}; bands are 95 % intervals."
        )
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


def _not_tuned(entries: Sequence[Entry]) -> str:
    """What the mark of labels means, if an entry has it."""
    return "".join(f"; {note}" for note in not_tuned_notes(entries))


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._") or "_"
