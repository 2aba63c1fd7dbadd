"""The page's figures: small panels of one metric each, side by side on a screen and below each other on a phone."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from romexp.analysis.shared_cases import on_shared_cases
from romexp.analysis.studies import Entry, Study
from romexp.analysis.sweeps import sweep_axis
from romexp.reporting.figures.draw_all import MOST_BARS, swept_editors
from romexp.reporting.figures.editors import box_metrics, box_panel, editor_bars
from romexp.reporting.figures.style import editor_color, mean_of
from romexp.reporting.figures.sweeps import sweep_figure
from romexp.reporting.page.svg import inline_svg
from romexp.reporting.tables.remarks import not_tuned_notes, shown_label
from romexp.results.find import FoundRun

PANEL = 3.55
"""Width of a panel in inches: what a phone of 390 pixels shows."""
LEGEND_LETTERS = 42
"""Letters of a legend's label on one line."""
DPI = 160
"""Resolution of pictures, which the page shows in their size on paper."""


@dataclass(frozen=True, kw_only=True)
class PageFigure:
    """One figure of the page, which holds its panels, or a picture for what was drawn elsewhere.

    Attributes:
        panels: `<svg>` elements or other HTML.
        picture: data URL, width and height in pixels of a picture; empty if there is none.
    """

    caption: str
    panels: tuple[Markup, ...] = ()
    picture: Mapping[str, Any] | None = None


def study_figures(study: Study, *, heading: str, identifier: str, x: str | None, shared: bool) -> Iterator[PageFigure]:
    """A study's figures: its editors as bars and as boxes over cases, and each sweep.

    Args:
        heading: what the study is called on the page.
        identifier: id of the study in the page.
        x: dotted name of the setting on the x axis of sweeps; None lets `sweep_axis` choose it.
        shared: compare entries on the cases that they share.
    """
    swept = swept_editors(study, x)
    compared = [entry for entry in study.entries if entry.edits] or list(study.entries)
    if len(compared) > MOST_BARS:
        compared = [entry for entry in compared if entry.editor not in swept]
    if 0 < len(compared) <= MOST_BARS:
        part = _together(study, compared, shared=shared)
        yield from _comparison(part, f"{heading}{_remark(part.entries)}", identifier)
    for editor, entries in swept.items():
        part = _together(study, entries, shared=shared)
        yield _sweep(part, editor, x, f"{heading}{_remark(part.entries)}", f"{identifier}-{editor}")


def _together(study: Study, entries: Sequence[Entry], *, shared: bool) -> Study:
    part = replace(study, entries=tuple(entries))
    return on_shared_cases(part) if shared else part


def _remark(entries: Sequence[Entry]) -> str:
    return "".join(f"; {note}" for note in not_tuned_notes(entries))


def _comparison(study: Study, where: str, identifier: str) -> Iterator[PageFigure]:
    entries, before = study.entries, study.unedited["pre"]
    colors = {shown_label(entry): editor_color(entry.editor) for entry in entries}
    sides = {shown_label(entry): entry.metrics for entry in entries}
    figures = {}
    for metric in [name for name in study.columns if any(mean_of(side, name) is not None for side in sides.values())]:
        figure = editor_bars(sides, before=before, colors=colors, title="", panels=[[metric]])
        figure.set_size_inches(PANEL, figure.get_figheight())
        figures[metric] = figure
    yield _figure(f"Editors on {where}. Whiskers are 95 % intervals.", figures, f"{identifier}-bars")
    frames = {shown_label(entry): entry.frame for entry in entries}
    if boxes := {metric: box_panel(frames, metric, colors=colors) for metric in box_metrics(frames)}:
        caption = (
            f"Distribution over cases after the edit, {where}. A box holds the middle half of the cases; the line in "
            "it is the median, the white dot the mean."
        )
        yield _figure(caption, boxes, f"{identifier}-boxes")


def _sweep(study: Study, editor: str, x: str | None, where: str, identifier: str) -> PageFigure:
    entries = study.entries
    axis = sweep_axis([entry.distinct for entry in entries], x=x)
    assert axis is not None  # `swept_editors` found it
    sides, before = [entry.metrics for entry in entries], study.unedited["pre"]
    single = (entries[0].name, editor_color(editor))
    figures: dict[str, Figure] = {}
    for metric in [name for name in study.columns if any(mean_of(side, name) is not None for side in sides)]:
        figure = sweep_figure(axis, sides, before=before, single=single, title="", panels=[[metric]])
        figure.set_size_inches(PANEL, figure.get_figheight())
        figures[metric] = figure
    if figures:
        figures["legend"] = _legend_of(next(iter(figures.values())))
    caption = f"{entries[0].name} by {axis.title}, {where}. Bands are 95 % intervals."
    return _figure(caption, figures, identifier)


def _legend_of(figure: Figure) -> Figure:
    """The legend of a figure as one of its own."""
    handles, whole = figure.axes[0].get_legend_handles_labels()
    labels = ["\n".join(textwrap.wrap(label, LEGEND_LETTERS)) for label in whole]
    legend = Figure(figsize=(PANEL, 0.2 * sum(label.count("\n") + 1 for label in labels) + 0.15))
    legend.legend(handles, labels, loc="center left", fontsize=9, frameon=False, borderaxespad=0)
    return legend


def _figure(caption: str, figures: Mapping[str, Figure], identifier: str) -> PageFigure:
    panels = [
        inline_svg(figure, prefix=f"f-{identifier}-{name}", label=f"{name}. {caption}")
        for name, figure in figures.items()
    ]
    return PageFigure(caption=caption, panels=tuple(panels))


def picture(path: Path, *, of: FoundRun | None = None) -> PageFigure:
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
    size = {"data": f"data:image/png;base64,{data}", "width": width, "height": height}
    return PageFigure(caption=caption, picture=size)
