"""Figures of sequences of edits: scores by number of edits, what is left of an edit, signs of collapse
(docs/method.md §13.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from romexp.analysis.lifelong_studies import LifelongEntry, LifelongStudy
from romexp.analysis.summary import UNEDITED
from romexp.reporting.figures.style import (
    UNEDITED_COLOR,
    Side,
    add_title,
    color,
    interval,
    mean_of,
    panel_rows,
    plain,
    style_axes,
    whole_range,
    write_figure,
)
from romexp.results.settings import free_name

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)))
"""Lines of one colour and marker differ in this."""

SIGNS: Mapping[str, str] = {
    "perplexity": "Perplexity of fixed texts",
    "entropy": "Word entropy of generated texts",
    "hidden_shift": "Shift of hidden states",
    "weight_change": "‖ΔW‖/‖W‖, largest of all layers",
}
"""Titles of the signs of collapse."""
WIDE = 20.0
"""A sign whose largest value is more than this many times its smallest has a logarithmic axis."""

Point = tuple[float, Side]
"""A place on the x axis and the statistics there."""


def draw_lifelong(studies: Sequence[LifelongStudy], folder: Path) -> list[Path]:
    """Draw every figure of every study and write it as PDF and PNG. Equal input gives byte-identical files."""
    paths: list[Path] = []
    taken: set[str] = set()
    for study in studies:
        base = free_name(
            "".join(c if c.isalnum() or c in "._-" else "_" for c in f"{study.model}_{study.dataset}"), taken, "_"
        )
        for name, caption, figure in lifelong_drawings(study):
            paths += write_figure(figure, folder / f"{base}_lifelong_{name}", caption=caption)
    return paths


def lifelong_drawings(study: LifelongStudy) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure of each drawing of a study."""
    bands = "bands are 95 % intervals over cases"
    caption = f"{study.label}: all cases edited so far, by number of edits; {bands}."
    pre = max((entry.summary for entry in study.entries), key=lambda summary: summary["n_cases"])["pre"]
    yield "scores", caption, _curves(study.entries, _by_edits, before=pre, x="edits", title=caption)
    caption = f"{study.label}: what is left of an edit after more edits (0: right after its step); {bands}."
    yield "retention", caption, _curves(study.entries, _by_age, before=pre, x="later edits", title=caption)
    if any(entry.watch for entry in study.entries):
        caption = f"{study.label}: signs of collapse on texts about other things."
        yield "collapse", caption, _collapse(study.entries, title=caption)


def _by_edits(entry: LifelongEntry) -> list[Point]:
    return [(point["edits"], point["post"]) for point in entry.by_edits]


def _by_age(entry: LifelongEntry) -> list[Point]:
    return [(point["later_edits"], point["post"]) for point in entry.by_age]


def _curves(
    entries: Sequence[LifelongEntry],
    points_of: Callable[[LifelongEntry], list[Point]],
    *,
    before: Side,
    x: str,
    title: str,
) -> Figure:
    """One panel for each metric, a line with its band for each entry; the unedited model is dashed."""
    points = [points_of(entry) for entry in entries]
    panels = panel_rows([side for line in points for _, side in line], spare=True)
    figure = Figure(figsize=(2.65 * len(panels[0]) + 0.3, 2.3 * len(panels) + 0.6), layout="constrained")
    grid = figure.subplots(len(panels), len(panels[0]), squeeze=False)
    for axes, metric in zip(grid.flat, (name for row in panels for name in row), strict=True):
        if not metric:
            axes.set_axis_off()
            continue
        for number, (entry, line) in enumerate(zip(entries, points, strict=True)):
            _line(
                axes,
                [(place, side) for place, side in line if mean_of(side, metric) is not None],
                metric,
                number,
                entry,
            )
        style_axes(axes, metric, values="y")
        whole_range(axes, metric)
        _log_axis(axes, [place for line in points for place, _ in line], x)
        if (mean := mean_of(before, metric)) is not None:
            axes.axhline(mean, color=UNEDITED_COLOR, linewidth=1, linestyle=(0, (2, 2)), label=UNEDITED, zorder=1)
    _legend(list(grid.flat))
    return add_title(figure, title)


def _line(axes: Axes, line: Sequence[Point], metric: str, number: int, entry: LifelongEntry) -> None:
    if not line:
        return
    places = [place for place, _ in line]
    means = [side[metric]["mean"] for _, side in line]
    low, high = (list(ends) for ends in zip(*(interval(side[metric], metric) for _, side in line), strict=True))
    axes.plot(places, means, markersize=3.2, linewidth=1.3, label=plain(entry.label), **_style(number))
    axes.fill_between(places, low, high, color=color(number), alpha=0.12, linewidth=0)


def _style(number: int) -> dict[str, Any]:
    """How the line of an entry looks, by its number."""
    n = len(MARKERS)
    return {"color": color(number), "marker": MARKERS[number % n], "linestyle": DASHES[number // n % len(DASHES)]}


def _collapse(entries: Sequence[LifelongEntry], *, title: str) -> Figure:
    """One panel for each sign of collapse, by number of edits."""
    figure = Figure(figsize=(2.65 * (len(SIGNS) + 1) + 0.3, 2.9), layout="constrained")
    grid = figure.subplots(1, len(SIGNS) + 1, squeeze=False)
    for axes, (sign, name) in zip(grid.flat, SIGNS.items(), strict=False):
        shown: list[float] = []
        for number, entry in enumerate(entries):
            found = [(point["step"], value) for point in entry.watch if (value := _sign(point, sign)) is not None]
            shown += [value for _, value in found]
            places, values = [place for place, _ in found], [value for _, value in found]
            axes.plot(places, values, markersize=3.2, linewidth=1.3, label=plain(entry.label), **_style(number))
        style_axes(axes, name, values="y")
        if min(shown, default=0) > 0 and max(shown) > WIDE * min(shown):
            axes.set_yscale("log")
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        _log_axis(axes, [point["step"] for entry in entries for point in entry.watch], "edits")
    grid.flat[-1].set_axis_off()
    _legend(list(grid.flat))
    return add_title(figure, title)


def _sign(point: Mapping[str, float], sign: str) -> float | None:
    """A sign of collapse at one point; of the weights the largest of all layers."""
    values = [value for name, value in point.items() if name.partition("/")[0] == sign]
    return max(values, default=None)


def _log_axis(axes: Axes, places: Sequence[float], label: str) -> None:
    """A logarithmic x axis that begins at 0, which a plain one cannot show. Its ticks are at 0, 1, 10, 100, …; where
    fewer than three of them are in sight, also at 2, 5, 20, 50, …, or at 2, 3, 4, ….
    """
    largest, smallest = max([1.0, *places]), min(places, default=0.0)
    axes.set_xscale("symlog", linthresh=1)
    powers = [10.0**power for power in range(len(str(int(largest))))]
    ticks: list[float] = []
    for factors in ((1,), (1, 2, 5), range(1, 10)):
        if sum(smallest <= tick <= largest for tick in ticks) < 3:
            ticks = [0.0, *(factor * power for power in powers for factor in factors)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(smallest * 0.85 if smallest >= 1 else -0.1, largest * 1.15)
    axes.set_xlabel(label, fontsize=8)


def _legend(grid: Sequence[Axes]) -> None:
    """The legend, in the place that has no panel."""
    spare = next(axes for axes in grid if not axes.axison)
    handles, labels = next(axes for axes in grid if axes.axison).get_legend_handles_labels()
    spare.legend(handles, labels, loc="center left", fontsize=8, frameon=False, borderaxespad=0)
