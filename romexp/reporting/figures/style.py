"""What all figures share: colours of editors, names and units of metrics, the order of panels, writing of files."""

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

from romexp.analysis.intervals import interval_of
from romexp.files import replacing

Side = Mapping[str, Mapping[str, Any]]
"""Statistics by metric: the part `pre` or `post` of a summary."""

UNEDITED_COLOR = "#777777"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#000000")
"""Colours of lines that stand for no editor: Okabe and Ito's palette, with brown in place of yellow, which is hard to
see on white."""

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
"""Colour of each editor by option name. Networks of one editor that differ in their training data are shades of it."""
OTHER_EDITORS = ("#6A4C93", "#4D4D4D", "#A6761D", "#1B4965")
"""Colours of editors that are not in the paper."""

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
"""The paper's full names of metrics. A metric without an entry is shown by its own name."""

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
"""Rows of panels; each magnitude is below the score that it belongs to."""


def color(number: int) -> str:
    """The colour of a line by its number, from 0. Colours repeat after eight lines."""
    return COLORS[number % len(COLORS)]


def editor_color(editor: str) -> str:
    """The colour of an editor by its option name; it is the same in every figure."""
    number = hashlib.sha256(editor.encode()).digest()[0]
    return EDITORS.get(editor) or OTHER_EDITORS[number % len(OTHER_EDITORS)]


def plain(text: str) -> str:
    """The text on one line, escaped so that matplotlib does not take parts of it for mathematics.

    Characters that the font lacks become `□`.
    """
    glyphs = _glyphs()
    line = "".join(c if ord(c) in glyphs else "□" for c in " ".join(text.split()))
    return line.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    """Code points of the characters in the figures' font."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def mean_of(side: Side, metric: str) -> float | None:
    """A metric's mean; None where the side lacks it."""
    return side[metric]["mean"] if metric in side else None


def interval(entry: Mapping[str, Any], metric: str = "") -> tuple[float, float]:
    """Both ends of the 95 % interval (`interval_of`); NaN if there is none.

    Args:
        metric: if given, the interval is cut to the values that this metric can have. With few cases the half-width
            may reach beyond them.
    """
    low, high = interval_of(entry)
    if low is None or high is None:
        return math.nan, math.nan
    if UNITS.get(metric) in PERCENTAGES:
        low, high = max(low, 0 if metric in BOUNDED else -100), min(high, 100)
    return low, high


def panel_rows(sides: Sequence[Side], *, spare: bool) -> list[list[str]]:
    """Metrics that at least one side has, as rows of panels. An empty name stands for a place without a panel.

    Args:
        spare: whether there must be a place without a panel, for a legend.
    """
    rows = []
    for names in PANELS:
        row = [name for name in names if not name or any(mean_of(side, name) is not None for side in sides)]
        # S belongs to every kind of data set, so it does not tell which rows are needed.
        if any(name not in ("", "S") for name in row):
            rows.append(row)
    if spare and not any("" in row for row in rows):
        rows[0] = [*rows[0], ""]
    width = max((len(row) for row in rows), default=0)
    return [row + [""] * (width - len(row)) for row in rows]


def style_axes(axes: Axes, metric: str, *, values: str) -> None:
    """Set a panel's title, unit and tick size, and hide its top and right edges.

    Args:
        values: the axis of the metric's values, `x` or `y`.
    """
    axes.set_title(TITLES.get(metric, metric), fontsize=9)
    axes.set(**{f"{values}label": UNITS.get(metric, "")})
    (axes.xaxis if values == "x" else axes.yaxis).label.set_fontsize(8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def named_ticks(axes: Axes, places: Sequence[int], names: Sequence[str], *, turned: bool) -> None:
    """Show names below the x axis, and faint horizontal lines at the ticks of the y axis.

    Args:
        places: positions of the names.
        turned: whether the names are rotated, for lack of room.
    """
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
    """Let a metric that is between 0 and 100 have an axis from 0 to 100, with some room at both ends."""
    if metric in BOUNDED:
        axes.set_ylim(-4, 104)
        axes.set_yticks([0, 25, 50, 75, 100])


def add_title(figure: Figure, title: str) -> Figure:
    """Give the figure a title, broken into lines of its width; return the figure."""
    figure.suptitle("\n".join(map(plain, textwrap.wrap(title, int(12.5 * figure.get_figwidth())))), fontsize=10)
    return figure


def write_figure(figure: Figure, stem: Path, *, caption: str) -> list[Path]:
    """Write `stem`.pdf and `stem`.png with the caption in their metadata. Equal figures give byte-identical files."""
    paths = [stem.with_name(f"{stem.name}.pdf"), stem.with_name(f"{stem.name}.png")]
    lay_out(figure)
    with replacing(paths[0]) as part:
        metadata = {"CreationDate": None, "Title": caption}
        figure.savefig(part, format="pdf", dpi=300, metadata=metadata, bbox_inches="tight")
    with replacing(paths[1]) as part:
        metadata = {"Software": None, "Description": caption}
        figure.savefig(part, format="png", dpi=160, metadata=metadata, bbox_inches="tight")
    return paths


def lay_out(figure: Figure) -> None:
    """Arrange the parts of a figure once and for all. Otherwise each saving does it anew, which takes seconds."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
