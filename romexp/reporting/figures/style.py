"""What all figures of results share: an editor's colour, the paper's metric names and their units, panels, files."""

from __future__ import annotations

import hashlib
import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from romexp.analysis.summary import interval_of

Side = Mapping[str, Mapping[str, Any]]
"""Statistics by metric: one side of a summary."""

UNEDITED_COLOR = "#777777"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#000000")
"""Of lines that are no editors: Okabe and Ito's palette without yellow, which white paper swallows, with brown in its
place."""

EDITORS: Mapping[str, str] = {
    "none": UNEDITED_COLOR,
    "ft": "#E69F00",
    "ft_l": "#56B4E9",
    "ft_attn": "#0072B2",
    "kn": "#8C6D46",
    "ke": "#009E73",
    "ke_zsre": "#66C5AB",
    "ke_cf": "#00654A",
    "mend": "#CC79A7",
    "mend_zsre": "#E5BCD3",
    "mend_cf": "#8A3F68",
    "rome": "#D1495B",
}
"""One colour an editor, by option name, in all figures; those trained on other data are shades of one."""
OTHER_EDITORS = ("#6A4C93", "#4D4D4D", "#A6761D", "#1B4965")
"""Of editors that the paper does not have."""

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

PERCENTAGES = ("%", "percentage points")
"""Units in which no value is beyond ±100."""

UNITS: Mapping[str, str] = {
    **dict.fromkeys(BOUNDED, PERCENTAGES[0]),
    **dict.fromkeys(("EM", "PM", "NM"), PERCENTAGES[1]),
    "GE": "bits × 100",
    "RS": "cosine × 100",
}

PANELS: Sequence[Sequence[str]] = (
    ("S", "ES", "PS", "NS", "GE"),
    ("", "EM", "PM", "NM", "RS"),
    ("S", "Efficacy", "Paraphrase", "Specificity"),
)
"""Where each metric's panel stands: magnitudes below the scores they belong to."""


def color(number: int) -> str:
    """The colour of the n-th line; they come again after the eighth."""
    return COLORS[number % len(COLORS)]


def editor_color(editor: str) -> str:
    """The colour of an editor, by its option name: the same in every figure, whatever others it stands beside."""
    number = hashlib.sha256(editor.encode()).digest()[0]
    return EDITORS.get(editor) or OTHER_EDITORS[number % len(OTHER_EDITORS)]


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


def interval(entry: Mapping[str, Any], metric: str = "") -> tuple[float, float]:
    """Both ends of the 95 % interval: mean ± half-width, or the bootstrap's for S; NaN where there is none.

    Args:
        metric: with it, cut to the values that it can have: with few cases the half-width reaches beyond.
    """
    low, high = interval_of(entry)
    if low is None or high is None:
        return math.nan, math.nan
    if UNITS.get(metric) in PERCENTAGES:
        low, high = max(low, 0 if metric in BOUNDED else -100), min(high, 100)
    return low, high


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


def style_axes(axes: Axes, metric: str, *, values: str) -> None:
    """Panel title, unit and tick size; a frame only where the numbers stand.

    Args:
        values: the axis of the metric's values, `x` or `y`.
    """
    axes.set_title(TITLES.get(metric, metric), fontsize=9)
    axes.set(**{f"{values}label": UNITS.get(metric, "")})
    (axes.xaxis if values == "x" else axes.yaxis).label.set_fontsize(8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def named_ticks(axes: Axes, places: Sequence[int], names: Sequence[str], *, turned: bool) -> None:
    """Names below the axis, turned where side by side they would not fit; faint lines at the values."""
    axes.set_xticks(
        places,
        names,
        fontsize=8,
        rotation=45 if turned else 0,
        ha="right" if turned else "center",
        rotation_mode="anchor",
    )
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def whole_range(axes: Axes, metric: str) -> None:
    """From 0 to 100 where the metric cannot leave it, with room for a line at either end."""
    if metric in BOUNDED:
        axes.set_ylim(-4, 104)
        axes.set_yticks([0, 25, 50, 75, 100])


def add_title(figure: Figure, title: str) -> Figure:
    """The figure with its title, on as many lines as its width asks for."""
    figure.suptitle("\n".join(map(plain, textwrap.wrap(title, int(12.5 * figure.get_figwidth())))), fontsize=10)
    return figure


def write_figure(figure: Figure, stem: Path, *, caption: str) -> list[Path]:
    """Write `stem`.pdf and `stem`.png, byte-identical when repeated, with the caption in their metadata."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.pdf"), stem.with_name(f"{stem.name}.png")]
    figure.savefig(paths[0], dpi=300, metadata={"CreationDate": None, "Title": caption}, bbox_inches="tight")
    figure.savefig(paths[1], dpi=160, metadata={"Software": None, "Description": caption}, bbox_inches="tight")
    return paths
