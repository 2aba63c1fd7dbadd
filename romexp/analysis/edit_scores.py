"""How well an edit did what was asked, from probabilities before and after it (Hase et al. 2023; docs/method.md
§14.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from romexp.results.rows import Row

FLOOR = 2e-8
"""The smallest score of an edit that should make the target more likely."""

OUTCOMES = ("rewrite", "paraphrase", "neighborhood", "overall")
COLUMNS = ("case_id", "method", "objective", "layer", "fraction", "fraction_last_subject", *OUTCOMES)


def raised(before: float, after: float) -> float | None:
    """1 - (1 - after) / (1 - before): the share of what was missing to certainty that the edit added, at least `FLOOR`;
    None if nothing was missing.
    """
    return max(FLOOR, 1 - (1 - after) / (1 - before)) if before < 1 else None


def erased(before: float, after: float) -> float | None:
    """(before - after) / before: the share that the edit took away, at least 0; None if there was nothing."""
    return max(0.0, (before - after) / before) if before > 0 else None


def kept(before: float, after: float) -> float:
    """1 - |after - before| / (largest change that was possible): 1 if the edit left the probability as it was."""
    return 1 - abs(after - before) / (abs(before - 0.5) + 0.5)


def edit_scores(edit: Mapping[str, Any]) -> dict[str, float | None]:
    """The scores of one edit; `overall` is the mean of the other three, and None if one of them is."""
    reached = erased if edit["objective"] == "erasure" else raised
    scores: dict[str, float | None] = {
        kind: None if edit.get(kind) is None else measure(*edit[kind])
        for kind, measure in (("rewrite", reached), ("paraphrase", reached), ("neighborhood", kept))
    }
    values = [value for value in scores.values() if value is not None]
    return scores | {"overall": sum(values) / 3 if len(values) == 3 else None}


def score_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line for each edit of each fact that the model knows, with the columns `COLUMNS`.

    Edits that could not be made have no line; a score that is not defined is NaN.
    """
    lines = [
        {
            "case_id": row["case_id"],
            **{name: edit[name] for name in ("method", "objective", "layer")},
            "fraction": row["fraction"][edit["layer"]],
            "fraction_last_subject": row["fraction_last_subject"][edit["layer"]],
            **edit_scores(edit),
        }
        for row in rows
        if row["correct_prediction"]
        for edit in row["edits"]
        if "error" not in edit
    ]
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(("fraction", "fraction_last_subject", *OUTCOMES), float))
