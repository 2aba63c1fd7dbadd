"""The scale of a prompt's heat maps: one for all panels, with the scores of the clean and the corrupted run marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colorbar import Colorbar

from romexp.analysis.trace_settings import base_name, sign


def limits_of(row: Mapping[str, Any], kinds: Sequence[str]) -> tuple[float, float]:
    """The ends of the scale of all panels: the score with nothing replaced, and the farthest one that a cell has or
    that the other run has.
    """
    from_low = base_name(row.get("setting") or {}) == "low_score"
    base, other = (row[f"{name}_score"] for name in (("low", "high") if from_low else ("high", "low")))
    cells = [np.array(row[kind], dtype=float) for kind in kinds]
    # The scale needs a length even if no cell goes beyond the base.
    if sign(row.get("setting") or {}) > 0:
        return base, max(*(float(np.nanmax(grid)) for grid in cells), other, base + 1e-6)
    return min(*(float(np.nanmin(grid)) for grid in cells), other, base - 1e-6), base


def mark_runs(bar: Colorbar, row: Mapping[str, Any]) -> None:
    """Mark the scores of the clean and of the corrupted run on the scale."""
    for name, score in (("clean", row["high_score"]), ("corrupted", row["low_score"])):
        bar.ax.axhline(score, color="black", linewidth=1.2)
        bar.ax.annotate(
            name,
            (0, score),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            rotation=90,
            fontsize=5.5,
        )
