"""From case results to a run's summary: the one place where cases are averaged
(docs/method.md §9.4, docs/method.md §5.7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from romexp.analysis.metrics import SCORED, UNSCALED, case_metrics
from romexp.results.rows import CaseResult, Side

SIDES: tuple[Side, ...] = ("pre", "post")
UNEDITED = "unedited"
"""What the model as it was is called, beside editors."""
Summary = dict[str, Any]
Statistics = dict[str, Any]
"""`mean`, `half_width`, `std`, `n` of one metric; S has an `interval` and no half-width."""

Z_95 = 1.96
RESAMPLES = 1000
CHUNK = 100
"""Resamples drawn at once: bounds memory at some ten thousand cases."""


def case_frame(results: Sequence[CaseResult], *, sides: Sequence[Side] = SIDES) -> pd.DataFrame:
    """Per-case metrics, sorted by case id: what `cases.parquet` holds.

    Columns: `case_id`; `complete`, false for a case that failed; and `<side>/<metric>`, fractions (GE in bits), NaN
    where a case lacks the metric.
    """
    records = []
    for result in results:
        record: dict[str, Any] = {"case_id": result.case_id, "complete": result.is_complete(sides)}
        for side in sides:
            for name, value in case_metrics(result.measured(side) or {}).items():
                record[f"{side}/{name}"] = value
        records.append(record)
    frame = pd.DataFrame.from_records(records, columns=_columns(records, sides))
    return frame.sort_values("case_id", kind="stable", ignore_index=True)


def _columns(records: Sequence[Mapping[str, Any]], sides: Sequence[str]) -> list[str]:
    """`case_id`, `complete`, then the metrics in order of first appearance, one side after the other."""
    seen = dict.fromkeys(name for record in records for name in record)
    metrics = [name for side in sides for name in seen if name.startswith(f"{side}/")]
    return ["case_id", "complete", *metrics]


def summarize(results: Sequence[CaseResult], *, sides: Sequence[Side] = SIDES, seed: int = 0) -> Summary:
    """The run's summary, JSON-ready: `{"n_cases", "n_failed", "pre": {metric: statistics}, "post": …}`.

    Cases not measured on all `sides` are left out of both, and counted as failed. A run that edits nothing has
    `sides=("pre",)`.

    Args:
        seed: of the bootstrap for S.
    """
    return summarize_frame(case_frame(results, sides=sides), sides=sides, seed=seed)


def summarize_frame(frame: pd.DataFrame, *, sides: Sequence[str] = SIDES, seed: int = 0) -> Summary:
    """The same of what `case_frame` made."""
    used = frame[frame["complete"].astype(bool)]
    summary: Summary = {"n_cases": len(used), "n_failed": len(frame) - len(used)}
    for side in sides:
        names = [name.removeprefix(f"{side}/") for name in used.columns if name.startswith(f"{side}/")]
        values = {name: used[f"{side}/{name}"].to_numpy(dtype=float) for name in names}
        summary[side] = summarize_side(values, seed=seed)
    return summary


def summarize_side(values: Mapping[str, np.ndarray], *, seed: int = 0) -> dict[str, Statistics]:
    """Statistics of each metric, S first where its three parts are there. Metrics no case has are left out.

    Args:
        values: per metric, one fraction a case; NaN where the case lacks it.
    """
    out = metric_statistics(values)
    for parts in SCORED:
        if all(name in out for name in parts):
            score = _score_statistics(np.stack([values[name] for name in parts], axis=1), seed=seed)
            return {"S": score, **out}
    return out


def metric_statistics(values: Mapping[str, np.ndarray]) -> dict[str, Statistics]:
    """`statistics` of each metric in its own scale, without S. Metrics no case has are left out."""
    out = {name: statistics(v, scale=1.0 if name in UNSCALED else 100.0) for name, v in values.items()}
    return {name: entry for name, entry in out.items() if entry["n"]}


def statistics(values: np.ndarray, *, scale: float = 100.0) -> Statistics:
    """Mean, population std (ddof 0) and 95 % half-width 1.96·std/√n, with n the cases that have the metric, × `scale`.

    The paper divided by the nominal number of cases instead of n.
    """
    present = values[np.isfinite(values)]
    if not len(present):
        return {"mean": None, "half_width": None, "std": None, "n": 0}
    mean, std = float(present.mean()) * scale, float(present.std()) * scale
    return {"mean": mean, "half_width": Z_95 * std / math.sqrt(len(present)), "std": std, "n": len(present)}


def interval_of(entry: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Both ends of a statistic's 95 % interval: mean ± half-width, the bootstrap's for S; None where there is none."""
    if entry.get("half_width") is not None:
        return entry["mean"] - entry["half_width"], entry["mean"] + entry["half_width"]
    low, high = entry.get("interval") or (None, None)
    return low, high


def harmonic_mean(values: Iterable[float]) -> float:
    """n / Σ 1/x of non-negative numbers; 0 as soon as one of them is 0.

    Raises:
        ValueError: no numbers, or a negative one.
    """
    from scipy.stats import hmean  # takes half a second to import, and most commands print no score

    numbers = np.array(list(values), dtype=float)
    if not len(numbers) or numbers.min() < 0:
        raise ValueError(f"a harmonic mean needs non-negative numbers, got {numbers.tolist()}")
    return float(hmean(numbers)) if numbers.min() > 0 else 0.0


def _score_statistics(values: np.ndarray, *, seed: int) -> Statistics:
    """S: harmonic mean of the three means, ×100; its 95 % interval is a percentile bootstrap over cases.

    The paper gives S no interval, and 1.96·std/√n has no meaning for it.

    Args:
        values: (cases × 3).
    """
    means = np.nanmean(values, axis=0)
    whole = values[np.isfinite(values).all(axis=1)]
    ends = bootstrap(whole, scores_of, seed=seed) if len(whole) else [None, None]
    return {"mean": float(scores_of(means)), "half_width": None, "interval": ends, "n": len(whole)}


def scores_of(means: np.ndarray) -> np.ndarray:
    """S of three means, fractions: their harmonic mean × 100. Means are (3 × …), and S is (…)."""
    from scipy.stats import hmean

    some_zero = (means <= 0).any(axis=0)
    return np.where(some_zero, 0.0, 100 * hmean(np.where(some_zero, 1.0, means), axis=0))


def bootstrap(values: np.ndarray, score: Callable[[np.ndarray], np.ndarray], *, seed: int) -> list[float]:
    """Percentile interval (95 %) of a score of means: cases are drawn anew `RESAMPLES` times.

    Args:
        values: (cases × k), without gaps.
        score: of means (k × resamples), one number a resample.
    """
    from scipy import stats

    if len(values) == 1 or (values == values[0]).all():  # nothing varies, and scipy would warn
        return [float(score(values[0]))] * 2
    found = stats.bootstrap(
        tuple(values.T),
        lambda *columns, axis: score(np.stack([column.mean(axis=axis) for column in columns])),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=CHUNK,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def flatten(summary: Summary) -> dict[str, float]:
    """Flat numbers for a tracker: `post/ES`, `post/ES_half_width`, `pre/S`, …, and the two counts."""
    flat: dict[str, float] = {}
    for key, value in summary.items():
        if not isinstance(value, Mapping):
            flat[key] = value
            continue
        for name, entry in value.items():
            flat[f"{key}/{name}"] = entry["mean"]
            if entry["half_width"] is not None:
                flat[f"{key}/{name}_half_width"] = entry["half_width"]
    return flat
