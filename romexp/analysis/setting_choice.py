"""Chooses the best of several settings that were measured on the same cases, and says which cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from romexp.analysis.metrics import SCORED
from romexp.analysis.summary import Statistics, score_difference

LAYER_RULE = "Taken: the largest S; of equal ones the largest paraphrase magnitude (PM), then the first layer."
RATE_RULE = (
    "Taken: the editor's own rate, unless the largest S is another's and higher by more than chance (the paired 95 % "
    "interval of the difference excludes 0)."
)


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """One setting that was measured.

    Attributes:
        value: the setting's value.
        summary: the summary of its run (`romexp.analysis.summary`).
        frame: metrics by case, the content of its `cases.parquet`.
    """

    value: float
    summary: dict[str, Any]
    frame: pd.DataFrame

    @property
    def after(self) -> dict[str, Statistics]:
        """Statistics of the edited models by metric."""
        statistics: dict[str, Statistics] = self.summary["post"]
        return statistics

    @property
    def score(self) -> float:
        """S after the edits."""
        return float(self.after["S"]["mean"])


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen setting.

    Attributes:
        best: its position.
        behind: for each setting, by how much the S of the chosen one is higher, with the 95 % interval of a paired
            bootstrap over cases; None for the chosen one itself.
    """

    best: int
    behind: Sequence[Statistics | None]

    @property
    def alike(self) -> list[int]:
        """Positions of the other settings that the records do not tell apart from the chosen one."""
        return [i for i, gap in enumerate(self.behind) if gap is not None and not _apart(gap)]


def choose_layer(scanned: Sequence[Scanned], *, seed: int) -> Choice:
    """The layer by `LAYER_RULE`.

    Args:
        seed: seed of the bootstrap.
    """
    best = min(range(len(scanned)), key=lambda i: (-round(scanned[i].score, 6), -_magnitude(scanned[i]), i))
    return _choice(scanned, best, seed)


def choose_rate(scanned: Sequence[Scanned], *, own: int, seed: int) -> Choice:
    """The learning rate by `RATE_RULE`.

    Args:
        own: position of the editor's own rate.
        seed: seed of the bootstrap.
    """
    best = max(range(len(scanned)), key=lambda i: (scanned[i].score, i == own))
    gap = None if best == own else _gap(scanned[best], scanned[own], seed)
    return _choice(scanned, best if gap and _apart(gap) else own, seed)


def _choice(scanned: Sequence[Scanned], best: int, seed: int) -> Choice:
    return Choice(
        best=best,
        behind=[None if i == best else _gap(scanned[best], other, seed) for i, other in enumerate(scanned)],
    )


def _gap(one: Scanned, two: Scanned, seed: int) -> Statistics:
    """S of one minus S of two, on the cases that both have."""
    frames = [each.frame[each.frame["complete"].astype(bool)].set_index("case_id") for each in (one, two)]
    parts = next(
        [f"post/{name}" for name in names]
        for names in SCORED
        if all(f"post/{name}" in frame for frame in frames for name in names)
    )
    first, second = (frame[parts].dropna() for frame in frames)
    both = first.index.intersection(second.index)
    if both.empty:
        return {"mean": one.score - two.score, "half_width": None, "interval": [None, None], "n": 0}
    return score_difference(first.loc[both].to_numpy(dtype=float), second.loc[both].to_numpy(dtype=float), seed=seed)


def _apart(gap: Statistics) -> bool:
    low, high = gap["interval"]
    return low is not None and (low > 0 or high < 0)


def _magnitude(scanned: Scanned) -> float:
    return float((scanned.after.get("PM") or {}).get("mean") or 0.0)
