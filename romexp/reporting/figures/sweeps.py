"""Metrics over layers, or over another swept setting, with 95 % bands (paper Fig. 5, 17, 18; SPEC §6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from romexp.analysis.summary import UNEDITED
from romexp.analysis.sweeps import LAYER, SweepAxis, SweepLine
from romexp.reporting.figures.style import (
    UNEDITED_COLOR,
    Side,
    color,
    described,
    interval,
    mean_of,
    named_ticks,
    panel_rows,
    plain,
    titled,
    whole_range,
)

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
MANY_VALUES = 12
"""Beyond this many, not every value has a tick."""
CHARACTERS = 30
"""Of tick labels that stand side by side below a panel."""
DODGE = 0.06
"""Between lines, in steps of the axis, so that those with the same values are seen beside each other."""


def sweep_figure(
    axis: SweepAxis, after: Sequence[Side], *, before: Side | None, single: tuple[str, str], title: str
) -> Figure:
    """A panel a metric, a line with its band for each of the axis's lines, the unedited model dashed.

    Args:
        after: of each entry, in the order that `axis` counts them.
        before: of the unedited model.
        single: name and colour of the line where there is but one: the editor's.
    """
    panels = panel_rows(after, spare=True)
    size = (2.65 * len(panels[0]) + 0.3, 2.3 * len(panels) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(panels), len(panels[0]), squeeze=False)
    for axes, metric in zip(grid.flat, (name for row in panels for name in row), strict=True):
        if not metric:
            axes.set_axis_off()
            continue
        _panel(axes, axis, after, metric, single)
        mean = mean_of(before or {}, metric)
        if mean is not None:
            axes.axhline(mean, color=UNEDITED_COLOR, linewidth=1, linestyle=(0, (2, 2)), label=UNEDITED, zorder=1)
    spare = next(axes for axes in grid.flat if not axes.axison)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    spare.legend(handles, labels, loc="center left", fontsize=8, frameon=False, borderaxespad=0)
    return described(figure, title)


def _panel(axes: Axes, axis: SweepAxis, after: Sequence[Side], metric: str, single: tuple[str, str]) -> None:
    apart = DODGE if len(axis.values) <= MANY_VALUES else 0.0
    for number, line in enumerate(axis.lines):
        label, shade = single if len(axis.lines) == 1 else (line.label, color(number))
        shift = apart * (number - (len(axis.lines) - 1) / 2)
        dash, marker = DASHES[number // 2 % len(DASHES)], MARKERS[number % len(MARKERS)]
        style = {"label": plain(label), "color": shade, "linestyle": dash, "marker": marker, "linewidth": 1.3}
        _line(axes, line, after, metric, shift=shift, style=style)
    titled(axes, metric, values="y")
    whole_range(axes, metric)
    step = 1 if len(axis.values) <= MANY_VALUES else 5 if axis.name == LAYER else math.ceil(len(axis.values) / 10)
    places = range(0, len(axis.values), step)
    texts = [axis.ticks[i] for i in places]
    turned = sum(len(text) + 2 for text in texts) > CHARACTERS
    named_ticks(axes, places, texts, turned=turned)
    axes.set_xlim(-0.4, len(axis.values) - 0.6)
    axes.set_xlabel(plain(axis.title), fontsize=8)


def _line(
    axes: Axes, line: SweepLine, after: Sequence[Side], metric: str, *, shift: float, style: Mapping[str, Any]
) -> None:
    """Breaks where an entry is missing; a band needs an interval."""
    n = max(line.members) + 1
    mean, low, high = (np.full(n, np.nan) for _ in range(3))
    for place, entry in line.members.items():
        value = mean_of(after[entry], metric)
        if value is not None:
            mean[place] = value
            low[place], high[place] = interval(after[entry][metric], metric)
    x = np.arange(n) + shift
    axes.plot(x, mean, markersize=3.2 if n <= MANY_VALUES else 2, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
