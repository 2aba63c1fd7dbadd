"""Every figure that studies allow (SPEC §6): sweeps, editors side by side, boxes, generated texts. PDF and PNG."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from romexp.reporting.editor_figures import case_boxes, editor_bars
from romexp.reporting.generations import generations
from romexp.reporting.studies import Entry, Study
from romexp.reporting.sweep_axes import sweep_axis
from romexp.reporting.sweep_figures import sweep_figure
from romexp.reporting.text_figures import generation_figure

MOST_BARS = 16
"""Entries in one chart and models in one figure of texts; an editor's sweep has a figure of its own."""
CASES_READ = 3
"""Cases in the figure of generated texts: the first ones, not chosen by result."""

Drawing = tuple[str, str, Figure]
"""What a figure shows (`sweep_rome`), a sentence about it, and the figure."""


def draw_all(studies: Sequence[Study], folder: Path) -> list[Path]:
    """Draw and write every figure: `<folder>/<model>_<dataset>_<what>.pdf` and `.png`, byte-identical when repeated.

    The sentence about a figure travels in its PNG as `Description`.
    """
    paths: list[Path] = []
    taken: set[str] = set()
    for study in studies:
        base = _free(_slug(f"{study.model}_{study.dataset}"), taken)
        for what, caption, figure in drawings(study):
            paths += write_figure(figure, folder / f"{base}_{_slug(what)}", caption=caption)
    return paths


def drawings(study: Study) -> Iterator[Drawing]:
    """A study's figures, most general first."""
    swept = {editor: entries for editor, entries in _by_editor(study).items() if _is_sweep(entries)}
    compared = list(study.entries)
    if len(compared) > MOST_BARS:
        compared = [entry for entry in compared if entry.editor not in swept]
    if 0 < len(compared) <= MOST_BARS:
        yield from _comparison(study, compared)
    for editor, entries in swept.items():
        yield from _sweep(study, editor, entries)
    texts = [case for case in generations(study)[:CASES_READ] if len(case.texts) <= MOST_BARS]
    caption = f"Texts generated from the same prompts, {study.model}, {study.dataset}: the first {len(texts)} cases."
    figure = generation_figure(texts, title=caption)
    if figure is not None:
        yield "generations", caption, figure


def write_figure(figure: Figure, stem: Path, *, caption: str) -> list[Path]:
    """Write `stem`.pdf and `stem`.png, byte-identical when repeated, with the caption in their metadata."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.pdf"), stem.with_name(f"{stem.name}.png")]
    figure.savefig(paths[0], metadata={"CreationDate": None, "Title": caption}, bbox_inches="tight")
    figure.savefig(paths[1], dpi=160, metadata={"Software": None, "Description": caption}, bbox_inches="tight")
    return paths


def _comparison(study: Study, entries: Sequence[Entry]) -> Iterator[Drawing]:
    where = f"{study.model}, {study.dataset}, {_cases(entries)}"
    sides = {entry.label: entry.metrics for entry in entries}
    caption = f"Editors on {where}; whiskers are 95 % intervals."
    yield "editors", caption, editor_bars(sides, before=study.unedited["pre"], title=caption)
    caption = f"Distribution over cases after the edit, {where}; white dots are means."
    figure = case_boxes({entry.label: entry.rows for entry in entries}, title=caption)
    if figure is not None:
        yield "cases", caption, figure
    pair = {entry.label: entry.rows for entry in entries if entry.editor in ("rome", "ft_attn")}
    if len(entries) > len(pair) and {entry.editor for entry in entries} >= {"rome", "ft_attn"}:
        caption = f"ROME and AttnEdit, distribution over cases, {where}; white dots are means."
        figure = case_boxes(pair, title=caption)
        if figure is not None:
            yield "rome_attnedit", caption, figure


def _sweep(study: Study, editor: str, entries: Sequence[Entry]) -> Iterator[Drawing]:
    axis = sweep_axis([entry.distinct for entry in entries])
    if axis is not None:
        caption = (
            f"{entries[0].name} by {axis.title}, {study.model}, {study.dataset}, {_cases(entries)}; "
            "bands are 95 % intervals."
        )
        after = [entry.metrics for entry in entries]
        yield f"sweep_{editor}", caption, sweep_figure(axis, after, before=study.unedited["pre"], title=caption)


def _by_editor(study: Study) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in study.entries:
        groups.setdefault(entry.editor, []).append(entry)
    return groups


def _is_sweep(entries: Sequence[Entry]) -> bool:
    return sweep_axis([entry.distinct for entry in entries]) is not None


def _cases(entries: Sequence[Entry]) -> str:
    counts = sorted({entry.n_cases for entry in entries})
    return f"{counts[0]} cases" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} cases"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._") or "_"


def _free(name: str, taken: set[str]) -> str:
    """The name, or with a number after it where another study has it."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
