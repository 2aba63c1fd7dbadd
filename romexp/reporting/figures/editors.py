"""Compares editors: bars of means with intervals (the values of Table 4), and box plots over cases (paper Fig. 24)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from romexp.analysis.summary import UNEDITED
from romexp.reporting.figures.style import (
    BOUNDED,
    PERCENTAGES,
    UNEDITED_COLOR,
    UNITS,
    Side,
    add_title,
    interval,
    mean_of,
    named_ticks,
    panel_rows,
    plain,
    style_axes,
    whole_range,
)

PER_CASE = ("EM", "PM", "NM", "GE", "RS", "Efficacy", "Paraphrase", "Specificity")
"""Metrics with box plots: those that take many values over cases, and all metrics of zsRE."""

CHARACTER = 0.09
"""Width of a character of a label, in inches."""


POINTS = 200
"""Most places of points beside a box."""

MOST_WIDTH = 11.0
"""Width in inches from which on box plots are drawn in several rows; a wider figure is not legible on a page."""


def editor_bars(
    after: Mapping[str, Side],
    *,
    before: Side | None,
    colors: Mapping[str, str],
    title: str,
    panels: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """One panel for each metric, with one bar for each editor, its 95 % interval and its mean as a number.

    Args:
        after: statistics after the edit, by the editor's label.
        before: statistics of the unedited model, whose bar is the first.
        colors: colours by the editor's label.
        panels: rows of metrics; None shows all that there are.
    """
    sides = {**({UNEDITED: before} if before else {}), **after}
    panels = panel_rows(list(sides.values()), spare=False) if panels is None else panels
    label_width = CHARACTER * max(map(len, sides))
    size = (2.3 * len(panels[0]) + label_width, (0.26 * len(sides) + 0.75) * len(panels) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(panels), len(panels[0]), squeeze=False)
    for row, names in zip(grid, panels, strict=True):
        for axes, metric in zip(row, names, strict=True):
            if metric:
                _bars(axes, sides, metric, colors)
            else:
                axes.set_axis_off()
        _labels(row, names, list(sides))
    return add_title(figure, title)


def _labels(row: Sequence[Axes], names: Sequence[str], labels: Sequence[str]) -> None:
    """Write labels beside the first panel of a row: in the empty place before it if there is one, else at its axis."""
    first = next(number for number, metric in enumerate(names) if metric)
    if first == 0:
        row[0].set_yticks(range(len(labels)), [plain(label) for label in labels], fontsize=9)
        return
    beside = row[first - 1]
    beside.set_ylim(row[first].get_ylim())
    for place, label in enumerate(labels):
        where = beside.get_yaxis_transform()
        beside.text(1.0, place, plain(label), transform=where, ha="right", va="center", fontsize=9, in_layout=False)


def _bars(axes: Axes, sides: Mapping[str, Side], metric: str, colors: Mapping[str, str]) -> None:
    ends = [0.0]
    for place, (label, side) in enumerate(sides.items()):
        mean = mean_of(side, metric)
        if mean is None:
            continue
        shade = colors.get(label, UNEDITED_COLOR)
        ends += _bar(axes, place, mean, interval(side[metric], metric), shade)
    style_axes(axes, metric, values="x")
    axes.axvline(0, color="black", linewidth=0.8)
    span = max(ends) - min(ends) or 1.0
    # Room for the numbers beside the bars.
    axes.set_xlim(min(ends) - (0.3 * span if min(ends) < 0 else 0), max(ends) + (0.3 * span if max(ends) > 0 else 0))
    if metric in BOUNDED:
        axes.set_xlim(0, 132)
    if UNITS.get(metric) in PERCENTAGES:  # a percentage cannot be beyond ±100, so there are no ticks there
        low, high = axes.get_xlim()
        axes.set_xticks([tick for tick in axes.get_xticks() if max(low, -100) <= tick <= min(high, 100)])
    axes.set_ylim(len(sides) - 0.4, -0.6)
    axes.set_yticks([])


def _bar(axes: Axes, place: int, mean: float, ends: tuple[float, float], shade: str) -> list[float]:
    """Draw one bar with its interval, and its mean as a number at the end away from zero.

    Returns:
        The mean and both ends of the interval.
    """
    axes.barh(place, mean, height=0.68, color=shade)
    low, high = (end if math.isfinite(end) else mean for end in ends)
    if low < high:
        reach = [[max(mean - low, 0)], [max(high - mean, 0)]]
        axes.errorbar(mean, place, xerr=reach, color="black", elinewidth=0.9, capsize=2)
    right = mean >= 0
    axes.annotate(
        f"{round(mean, 1) + 0.0:.1f}".replace("-", "−"),  # + 0.0 turns −0.0 into 0.0
        (max(mean, high) if right else min(mean, low), place),
        xytext=(3 if right else -3, 0),
        textcoords="offset points",
        va="center",
        ha="left" if right else "right",
        fontsize=8,
    )
    return [mean, low, high]


def case_boxes(frames: Mapping[str, pd.DataFrame], *, colors: Mapping[str, str], title: str) -> Figure | None:
    """Fig. 24: distribution over cases after the edit, in one panel for each metric with one box for each editor.

    Boxes show the quartiles and the median, white dots the mean. Whiskers reach at most 1.5 times the length of the box
    beyond it; cases that are further away are points.

    Args:
        frames: metrics by case (`analysis.summary.case_frame`), by the editor's label.
        colors: colours by the editor's label.

    Returns:
        None if no case has any of these metrics.
    """
    panels = box_metrics(frames)
    if not panels:
        return None
    labels = [plain(label) for label in frames]
    turned = sum(map(len, labels)) > 16
    below = 0.6 * CHARACTER * max(map(len, labels)) if turned else 0.0
    width = max(0.42 * len(frames) + 1.1, 1.9)
    columns = min(len(panels), max(1, int(MOST_WIDTH // width)))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(width * columns, (3.1 + below) * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, metric in zip(grid, panels, strict=False):
        _boxes(axes, _values(frames, metric), [colors.get(label, UNEDITED_COLOR) for label in frames])
        style_axes(axes, metric, values="y")
        whole_range(axes, metric)
        named_ticks(axes, range(1, len(frames) + 1), labels, turned=turned)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return add_title(figure, title)


def box_metrics(frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """The metrics with box plots that some case has."""
    return [name for name in PER_CASE if any(f"post/{name}" in frame for frame in frames.values())]


def box_panel(frames: Mapping[str, pd.DataFrame], metric: str, *, colors: Mapping[str, str]) -> Figure:
    """One metric's boxes lying below each other, with the editors' labels before them: as wide for one as for many."""
    figure = Figure(figsize=(3.5, 0.3 * len(frames) + 0.85), layout="constrained")
    axes = figure.subplots()
    _boxes(axes, _values(frames, metric), [colors.get(label, UNEDITED_COLOR) for label in frames], lying=True)
    style_axes(axes, metric, values="x")
    if metric in BOUNDED:
        axes.set_xlim(-4, 104)
    axes.set_yticks(range(1, len(frames) + 1), [plain(label) for label in frames], fontsize=9)
    axes.invert_yaxis()
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def _values(frames: Mapping[str, pd.DataFrame], metric: str) -> list[np.ndarray]:
    """The metric of each editor's cases, as tables show it."""
    columns = (frame.get(f"post/{metric}", pd.Series(dtype=float)) for frame in frames.values())
    return [100 * column.dropna().to_numpy() for column in columns]


def _boxes(axes: Axes, data: Sequence[np.ndarray], colors: Sequence[str], *, lying: bool = False) -> None:
    drawn = axes.boxplot(
        data,
        orientation="horizontal" if lying else "vertical",
        widths=0.6,
        patch_artist=True,
        showmeans=True,
        medianprops={"color": "black", "linewidth": 1.2},
        meanprops={"marker": "o", "markerfacecolor": "white", "markeredgecolor": "black", "markersize": 4},
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": "0.4"},
    )
    for line in drawn["fliers"]:
        _without_equal_points(line, lying=lying)
    for shade, box in zip(colors, drawn["boxes"], strict=True):
        box.set(facecolor=shade, alpha=0.75, linewidth=0.8)


def _without_equal_points(line: Line2D, *, lying: bool) -> None:
    """Leave out points that would lie on others: thousands of cases make a figure large that looks the same without."""
    values = np.asarray(line.get_xdata() if lying else line.get_ydata(), dtype=float)
    if len(values) < 2:
        return
    step = (values.max() - values.min()) / POINTS or 1.0
    _, kept = np.unique(np.round(values / step), return_index=True)
    line.set_data(np.asarray(line.get_xdata())[kept], np.asarray(line.get_ydata())[kept])
