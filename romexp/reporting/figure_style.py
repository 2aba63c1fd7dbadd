"""What all figures of results share: colours that colour-blind readers tell apart, the paper's metric names, panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

Side = Mapping[str, Mapping[str, Any]]
"""Statistics by metric: one side of a summary."""

UNEDITED = "#777777"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#000000")
"""Okabe and Ito's palette without yellow, which white paper swallows, and with brown in its place."""

TITLES: Mapping[str, str] = {
    "S": "Score (S)",
    "ES": "Efficacy score (ES)",
    "EM": "Efficacy magnitude (EM)",
    "PS": "Paraphrase score (PS)",
    "PM": "Paraphrase magnitude (PM)",
    "NS": "Neighborhood score (NS)",
    "NM": "Neighborhood magnitude (NM)",
    "GE": "Generation entropy (GE)",
    "RS": "Reference score (RS)",
}
"""Metrics as the paper writes them out; one that is not here is its own title."""

BOUNDED = ("S", "ES", "PS", "NS", "Efficacy", "Paraphrase", "Specificity")
"""Metrics between 0 and 100, whose panels show that whole range."""

PANELS: Sequence[Sequence[str]] = (
    ("S", "ES", "PS", "NS", "GE"),
    ("", "EM", "PM", "NM", "RS"),
    ("S", "Efficacy", "Paraphrase", "Specificity"),
)
"""Where each metric's panel stands: magnitudes below the scores they belong to."""


def color(number: int) -> str:
    """The colour of the n-th line or box; they come again after the eighth."""
    return COLORS[number % len(COLORS)]


def plain(text: str) -> str:
    """Text that matplotlib sets as it is, on one line: nothing is taken for mathematics, no glyph is missing.

    Characters that the font lacks become `□`.
    """
    glyphs = _glyphs()
    line = "".join(c if ord(c) in glyphs else "□" for c in " ".join(text.split()))
    return line.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    """Code points of the font that figures are set in."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def mean_of(side: Side, metric: str) -> float | None:
    """A metric's mean; None where the side lacks it."""
    return side[metric]["mean"] if metric in side else None


def interval(entry: Mapping[str, Any]) -> tuple[float, float]:
    """Both ends of the 95 % interval: mean ± half-width, or the bootstrap's for S; NaN where there is none."""
    if entry.get("half_width") is not None:
        return entry["mean"] - entry["half_width"], entry["mean"] + entry["half_width"]
    low, high = entry.get("interval") or (None, None)
    return (math.nan if low is None else low), (math.nan if high is None else high)


def panel_rows(sides: Sequence[Side], *, spare: bool) -> list[list[str]]:
    """Metrics that at least one side has, as rows of panels; an empty name is a place without one.

    Args:
        spare: whether there must be such a place, for a legend.
    """
    rows = []
    for names in PANELS:
        row = [name for name in names if not name or any(mean_of(side, name) is not None for side in sides)]
        # Every kind of data set has S: it alone does not make a row.
        if any(name not in ("", "S") for name in row):
            rows.append(row)
    if spare and not any("" in row for row in rows):
        rows[0] = [*rows[0], ""]
    width = max((len(row) for row in rows), default=0)
    return [row + [""] * (width - len(row)) for row in rows]


def titled(axes: Axes, metric: str) -> None:
    """Panel title and tick size; a frame only where the numbers stand."""
    axes.set_title(TITLES.get(metric, metric), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def whole_range(axes: Axes, metric: str) -> None:
    """From 0 to 100 where the metric cannot leave it, with room for a line at either end."""
    if metric in BOUNDED:
        axes.set_ylim(-4, 104)
        axes.set_yticks([0, 25, 50, 75, 100])


def described(figure: Figure, title: str) -> Figure:
    """The figure with its title."""
    figure.suptitle(plain(title), fontsize=10)
    return figure
