"""How much of what noise takes away each layer restores (Hase et al. 2023; docs/method.md §14.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from romexp.errors import RecordError


def fractions(row: Mapping[str, Any], *, kind: str) -> dict[str, Any]:
    """The fraction restored by layer: max(0, p_restored - p_corrupted) / |p_clean - p_corrupted|.

    Args:
        row: the row of a trace of probabilities, with the grid of `kind` ([tokens][layers]).

    Returns:
        `fraction`, by layer the largest one of all tokens; `fraction_last_subject`, that of the subject's last token;
        and the scores of the clean and the corrupted run.

    Raises:
        RecordError: the noise changes nothing, so that there is no fraction.
    """
    high, low = float(row["high_score"]), float(row["low_score"])
    if high == low:
        raise RecordError("noise on the subject does not change the probability of the answer", field="prompt")
    grid = np.array(row[kind], dtype=float)
    by_cell = np.fmax(grid - low, 0) / abs(high - low)  # A cell that is not traced counts as one that restores nothing.
    return {
        "high_score": high,
        "low_score": low,
        "fraction": by_cell.max(axis=0).tolist(),
        "fraction_last_subject": by_cell[row["subject_range"][1] - 1].tolist(),
    }
