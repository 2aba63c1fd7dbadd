"""Metrics over layers, or over another swept setting, with 95 % bands (paper Fig. 5, 17, 18; docs/method.md §6)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from romexp.analysis.summary import UNEDITED
from romexp.analysis.sweeps import LAYER, SweepAxis, SweepLine
from romexp.reporting.figures.style import (
    UNEDITED_COLOR,
    Side,
    add_title,
    color,
    interval,
    mean_of,
    named_ticks,
    panel_rows,
    plain,
    style_axes,
    whole_range,
)

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
MANY_VALUES = 12
"""If there are more values than this, not every value has a tick with a label."""
CHARACTERS = 30
"""Number of characters of tick labels that fit side by side below a panel."""
TURNED_ROOM = 0.085
"""Part of a panel's width that a rotated tick label needs."""
LONGEST_LABEL = 24
"""Longer tick labels are cut in the middle; the table of the sweep shows the whole text."""
SHORT_LABEL = 6
"""Rotated tick labels of up to this many characters fit into the usual height of a panel."""
CHARACTER_HEIGHT = 0.055
"""Inches by which a panel is higher for each character beyond `SHORT_LABEL`."""
DODGE = {"linear": 0.06, "log": 0.06, "names": 0.12}
"""Distance between the points of two lines at one value, as a part of the least distance of two values. With it, points
with equal means are seen beside each other. Points at names have a vertical interval, which needs more room."""
APART = 1.2
"""Distance of null from the last number, in units of the mean distance of two numbers."""
MARGIN = 0.4
"""Distance between the first or last value and the end of the axis, in units of the mean distance of two values."""


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where the values stand, and their tick labels. Places are logarithms to base 10 on a logarithmic axis.

    Attributes:
        places: place of each value, in order.
        step: mean distance of two values that have a place on the scale.
        labels: tick labels by position in `places`; not every value has one.
        turned: whether the labels are rotated, because they would not fit side by side.
    """

    axis: SweepAxis
    places: NDArray[np.float64]
    step: float
    labels: Mapping[int, str]
    turned: bool

    def on_axis(self, places: Any) -> Any:
        """Places as coordinates for matplotlib."""
        return 10.0 ** np.asarray(places) if self.axis.scale == "log" else places

    def shifts(self) -> list[float]:
        """How far each line's points are moved from the places of their values."""
        distances = np.diff(self.places)
        least = min(distances[distances > 0], default=1.0)
        n = len(self.axis.lines)
        apart = min(DODGE[self.axis.scale], 0.6 / n) if len(self.places) <= MANY_VALUES else 0.0
        return [apart * least * (number - (n - 1) / 2) for number in range(n)]


def sweep_figure(
    axis: SweepAxis,
    after: Sequence[Side],
    *,
    before: Side | None,
    single: tuple[str, str],
    title: str,
    panels: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """One panel for each metric, with a line and its band for each of the axis's lines; the unedited model is dashed.

    Numbers are placed by their size. Null is not a number: it is placed apart from them, at the right, and no line
    leads to it. Names are placed side by side, and no line joins them.

    Args:
        after: statistics of each entry, in the order of the entries that `axis` was made of.
        before: statistics of the unedited model.
        single: name and colour of the editor, for a line that is the only one.
        panels: rows of metrics, with an empty name for the legend's place; without one there is no legend. None shows
            all metrics that there are.
    """
    layout = _layout(axis)
    panels = panel_rows(after, spare=True) if panels is None else panels
    longest = max(map(len, layout.labels.values())) if layout.turned else 0
    height = 2.3 + CHARACTER_HEIGHT * max(0, longest - SHORT_LABEL)
    size = (2.65 * len(panels[0]) + 0.3, height * len(panels) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(panels), len(panels[0]), squeeze=False)
    for axes, metric in zip(grid.flat, (name for row in panels for name in row), strict=True):
        if not metric:
            axes.set_axis_off()
            continue
        _panel(axes, layout, after, metric, single)
        mean = mean_of(before or {}, metric)
        if mean is not None:
            axes.axhline(mean, color=UNEDITED_COLOR, linewidth=1, linestyle=(0, (2, 2)), label=UNEDITED, zorder=1)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    for spare in [axes for axes in grid.flat if not axes.axison][:1]:
        spare.legend(handles, labels, loc="center left", fontsize=8, frameon=False, borderaxespad=0)
    return add_title(figure, title)


def _layout(axis: SweepAxis) -> _Layout:
    places, step = _places(axis)
    labels, turned = _labels(axis, places / (places[-1] - places[0] + 2 * MARGIN * step))
    return _Layout(axis=axis, places=places, step=step, labels=labels, turned=turned)


def _places(axis: SweepAxis) -> tuple[NDArray[np.float64], float]:
    """`_Layout.places` and `_Layout.step`."""
    n = axis.n_placed
    if axis.scale == "names":
        return np.arange(len(axis.values), dtype=float), 1.0
    numbers = np.array(axis.values[:n], dtype=float)
    placed = np.log10(numbers) if axis.scale == "log" else numbers
    step = float(placed[-1] - placed[0]) / max(n - 1, 1) or 1.0
    apart = placed[-1] + step * APART * np.arange(1, len(axis.values) - n + 1)
    return np.concatenate([placed, apart]), step


def _labels(axis: SweepAxis, at: NDArray[np.float64]) -> tuple[dict[int, str], bool]:
    """Labels by position, without those for which there is no room, and whether they are rotated.

    Args:
        at: places of the values, in units of the panel's width.
    """
    n, joined = len(axis.values), axis.n_placed or len(axis.values)
    step = 1 if n <= MANY_VALUES else 5 if axis.name == LAYER else math.ceil(n / 10)
    labels = {place: _cut(axis.ticks[place]) for place in (*range(0, joined, step), *range(joined, n))}
    turned = any(
        CHARACTERS * (at[right] - at[left]) < (len(labels[left]) + len(labels[right])) / 2 + 2
        for left, right in itertools.pairwise(labels)
    )
    kept: list[int] = []
    for place in labels:
        # Values that are placed apart always have a label, since their distance is large enough.
        if not turned or place >= joined or not kept or at[place] - at[kept[-1]] >= TURNED_ROOM:
            kept.append(place)
    return {place: labels[place] for place in kept}, turned


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 8]}…{text[-7:]}"


def _panel(axes: Axes, layout: _Layout, after: Sequence[Side], metric: str, single: tuple[str, str]) -> None:
    axis = layout.axis
    if axis.scale == "log":
        axes.set_xscale("log")
    for number, (line, shift) in enumerate(zip(axis.lines, layout.shifts(), strict=True)):
        label, shade = (line.label, color(number)) if line.label else single
        dash, marker = DASHES[number // 2 % len(DASHES)], MARKERS[number % len(MARKERS)]
        style = {"label": _in_legend(label), "color": shade, "linestyle": dash, "marker": marker, "linewidth": 1.3}
        _line(axes, layout, line, after, metric, shift=shift, style=style)
    style_axes(axes, metric, values="y")
    whole_range(axes, metric)
    _ticks(axes, layout)
    axes.set_xlabel(plain(axis.title), fontsize=8)


def _in_legend(label: str) -> str:
    """A label for the legend, which leaves out those that begin with an underscore."""
    text = plain(label)
    return f" {text}" if text.startswith("_") else text


def _line(
    axes: Axes,
    layout: _Layout,
    line: SweepLine,
    after: Sequence[Side],
    metric: str,
    *,
    shift: float,
    style: Mapping[str, Any],
) -> None:
    """Draw one line with its band.

    Both are interrupted where an entry is missing and before values that are placed apart. A point without neighbours
    has a vertical line for its interval instead of a band.
    """
    n, joined = len(layout.places), layout.axis.n_placed
    mean, low, high = (np.full(n, np.nan) for _ in range(3))
    for place, entry in line.members.items():
        value = mean_of(after[entry], metric)
        if value is not None:
            mean[place] = value
            low[place], high[place] = interval(after[entry][metric], metric)
    # NaN between two points interrupts line and band.
    breaks = range(max(joined, 1), n)
    x, mean, low, high = (np.insert(each, breaks, np.nan) for each in (layout.places + shift, mean, low, high))
    x = layout.on_axis(x)
    shown = dict(style) if joined else {**style, "linestyle": "none"}
    axes.plot(x, mean, markersize=3.2 if n <= MANY_VALUES else 2, **shown)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
    known = np.pad(np.isfinite(low), 1)
    isolated = known[1:-1] & ~known[:-2] & ~known[2:]
    if isolated.any():
        axes.vlines(x[isolated], low[isolated], high[isolated], color=style["color"], alpha=0.45, linewidth=1.3)


def _ticks(axes: Axes, layout: _Layout) -> None:
    """Set a tick at each value, a faint vertical line before values that are placed apart, and the ends of the axis."""
    places, n_placed = layout.places, layout.axis.n_placed
    named = list(layout.labels)
    texts = list(map(plain, layout.labels.values()))
    named_ticks(axes, layout.on_axis(places[named]).tolist(), texts, turned=layout.turned)
    axes.set_xticks(layout.on_axis(np.delete(places, named)), minor=True)
    axes.xaxis.set_minor_formatter(NullFormatter())
    if 0 < n_placed < len(places):
        axes.axvline(layout.on_axis(places[n_placed - 1 : n_placed + 1].mean()), color="0.8", linewidth=0.8, zorder=0)
    margin = MARGIN * layout.step
    axes.set_xlim(layout.on_axis(places[0] - margin), layout.on_axis(places[-1] + margin))
