"""Finds single edits that disable a model: r-ROME's question (docs/method.md §13.6; Gupta et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from romexp.results.rows import CaseResult
from romexp.words import word_entropy

FAR = 5.0
"""How many robust standard deviations (1.4826 times the median distance from the median) are far out."""


def edit_signs(results: Iterable[CaseResult]) -> pd.DataFrame:
    """The two signs of a disabling edit, case by case.

    Columns: `case_id`, `subject`; `update`, the Frobenius norm ‖ΔW‖ of the edit (NaN for rows without it); `entropy`
    and `entropy_before`, the normalized word entropy of the texts that the edited and the unedited model generate
    (`romexp.words.word_entropy`; NaN without texts).
    """
    rows: list[dict[str, Any]] = []
    for result in results:
        after, before = (((side or {}).get("text") or []) for side in (result.after, result.before))
        norm = result.edit.get("update_norm")
        rows.append(
            {
                "case_id": result.case_id,
                "subject": result.request.subject,
                "update": float("nan") if norm is None else float(norm),
                "entropy": word_entropy(after) if after else float("nan"),
                "entropy_before": word_entropy(before) if before else float("nan"),
            }
        )
    return pd.DataFrame(rows, columns=["case_id", "subject", "update", "entropy", "entropy_before"])


def with_flags(signs: pd.DataFrame) -> pd.DataFrame:
    """Add what is far out (`FAR`): `large`, an update whose logarithm is far above the median; `poor`, an entropy that
    falls by far more than the median fall; `disabling`, both. Without texts an edit is `disabling` if it is large.
    """
    update = np.log(signs["update"].where(signs["update"] > 0).to_numpy(dtype=float))
    fall = (signs["entropy_before"] - signs["entropy"]).to_numpy(dtype=float)
    large, poor = _far_above(update), _far_above(fall)
    both = large & poor if np.isfinite(fall).any() else large
    return signs.assign(large=large, poor=poor, disabling=both)


def _far_above(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    middle = np.median(known)
    spread = 1.4826 * np.median(np.abs(known - middle))
    return np.isfinite(values) & (values > middle + FAR * max(spread, 1e-3))
