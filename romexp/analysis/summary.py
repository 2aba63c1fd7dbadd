"""Averages the metrics of cases into a run's summary (docs/method.md §5.7, §5.8). No other code averages cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from romexp.analysis.intervals import Z_95, score_interval
from romexp.analysis.metrics import RATES, SCORED, UNSCALED, case_metrics
from romexp.results.rows import CaseResult, Side

SIDES: tuple[Side, ...] = ("pre", "post")
UNEDITED = "unedited"
"""Name of the unedited model in lists of editors."""
Summary = dict[str, Any]
Statistics = dict[str, Any]
"""`mean`, `half_width`, `std` and `n` of one metric; of a rate also its `interval`. S has an `interval` instead of
half-width and deviation. What one case cannot tell is None."""

RESAMPLES = 1000
CHUNK = 100
"""Bootstrap resamples drawn at the same time, a divisor of `RESAMPLES`. It limits the memory for tens of thousands of
cases."""


def case_frame(results: Sequence[CaseResult], *, sides: Sequence[Side] = SIDES) -> pd.DataFrame:
    """Metrics by case, sorted by case id. `cases.parquet` holds this frame.

    The columns are `case_id`; `complete`, which is false for a case that failed; and `<side>/<metric>`, which is NaN if
    the case lacks the metric. Scores are fractions, and GE is in bits.
    """
    return frame_of_records([case_record(result, sides=sides) for result in results], sides=sides)


def case_record(result: CaseResult, *, sides: Sequence[Side] = SIDES) -> dict[str, Any]:
    """One row of the frame."""
    record: dict[str, Any] = {"case_id": result.case_id, "complete": result.is_complete(sides)}
    for side in sides:
        for name, value in case_metrics(result.measured(side) or {}).items():
            record[f"{side}/{name}"] = value
    return record


def frame_of_records(records: Sequence[Mapping[str, Any]], *, sides: Sequence[Side] = SIDES) -> pd.DataFrame:
    """The frame of rows that `case_record` made."""
    frame = pd.DataFrame.from_records(records, columns=_columns(records, sides))
    return frame.sort_values("case_id", kind="stable", ignore_index=True)


def _columns(records: Sequence[Mapping[str, Any]], sides: Sequence[str]) -> list[str]:
    """`case_id`, `complete`, then the metrics of each side, in order of first occurrence."""
    seen = dict.fromkeys(name for record in records for name in record)
    metrics = [name for side in sides for name in seen if name.startswith(f"{side}/")]
    return ["case_id", "complete", *metrics]


def summarize(results: Sequence[CaseResult], *, sides: Sequence[Side] = SIDES, seed: int = 0) -> Summary:
    """The summary of a run as JSON values: `{"n_cases", "n_failed", "pre": {metric: statistics}, "post": …}`.

    Cases that were not measured on all `sides` are left out of all means, and are counted as failed.

    Args:
        sides: the sides to summarize; `("pre",)` for a run that edits nothing.
        seed: seed of the bootstrap for S.
    """
    return summarize_frame(case_frame(results, sides=sides), sides=sides, seed=seed)


def summarize_frame(
    frame: pd.DataFrame, *, sides: Sequence[str] = SIDES, seed: int = 0, intervals: bool = True
) -> Summary:
    """The same as `summarize`, for a frame that `case_frame` made.

    Args:
        intervals: whether S and rates get their intervals, which take most of the time. Nothing else depends on it.
    """
    used = frame[frame["complete"].astype(bool)]
    summary: Summary = {"n_cases": len(used), "n_failed": len(frame) - len(used)}
    for side in sides:
        names = [name.removeprefix(f"{side}/") for name in used.columns if name.startswith(f"{side}/")]
        values = {name: used[f"{side}/{name}"].to_numpy(dtype=float) for name in names}
        summary[side] = summarize_side(values, seed=seed, intervals=intervals)
    return summary


def summarize_side(values: Mapping[str, np.ndarray], *, seed: int = 0, intervals: bool = True) -> dict[str, Statistics]:
    """Statistics of each metric. S comes first, if its three parts are there. Metrics that no case has are left out.

    Args:
        values: for each metric an array (cases,), NaN where a case lacks the metric. Scores are fractions.
        seed: seed of the bootstrap for S.
        intervals: whether S and rates get their intervals.
    """
    by_metric = metric_statistics(values, intervals=intervals)
    for parts in SCORED:
        if all(name in by_metric for name in parts):
            columns = np.stack([values[name] for name in parts], axis=1)
            score = _score_statistics(columns, seed=seed, intervals=intervals)
            return {"S": score, **by_metric}
    return by_metric


def metric_statistics(
    values: Mapping[str, np.ndarray], *, least_rate: float = 0.0, intervals: bool = True
) -> dict[str, Statistics]:
    """`statistics` of each metric except S, with the metric's own scale. Metrics that no case has are left out.

    Args:
        least_rate: the smallest possible value of a rate; for differences of rates it is -1.
        intervals: whether rates get their intervals.
    """
    by_metric = {}
    for name, column in values.items():
        entry = statistics(column, scale=scale_of(name))
        if entry["n"] and intervals and name in RATES:
            entry["interval"] = [100 * end for end in score_interval(column[np.isfinite(column)], low=least_rate)]
        by_metric[name] = entry
    return {name: entry for name, entry in by_metric.items() if entry["n"]}


def scale_of(metric: str) -> float:
    """The factor between a case's value and what summaries and tables show."""
    return 1.0 if metric in UNSCALED else 100.0


def statistics(values: np.ndarray, *, scale: float = 100.0) -> Statistics:
    """Mean, population standard deviation (divisor n) and 95 % half-width 1.96·std/√n, times `scale` (§5.7).

    n is the number of finite values, that is, of the cases that have the metric. The authors' half-width has the number
    of requested records in place of n. One value has no half-width.
    """
    present = values[np.isfinite(values)]
    if not len(present):
        return {"mean": None, "half_width": None, "std": None, "n": 0}
    mean, std = float(present.mean()) * scale, float(present.std()) * scale
    half_width = Z_95 * std / math.sqrt(len(present)) if len(present) > 1 else None
    return {"mean": mean, "half_width": half_width, "std": std, "n": len(present)}


def harmonic_mean(values: Iterable[float]) -> float:
    """n / Σ 1/x of n non-negative numbers; 0 if one of them is 0.

    Raises:
        ValueError: there are no numbers, or one is negative.
    """
    numbers = np.array(list(values), dtype=float)
    if not len(numbers) or numbers.min() < 0:
        raise ValueError(f"a harmonic mean needs non-negative numbers, got {numbers.tolist()}")
    return float(_harmonic(numbers)) if numbers.min() > 0 else 0.0


def _score_statistics(values: np.ndarray, *, seed: int, intervals: bool) -> Statistics:
    """S, which is 100 × the harmonic mean of the three means, and its 95 % interval (docs/method.md §5.3, §5.8).

    S is not a mean over cases, so 1.96·std/√n does not apply to it. The interval is a percentile bootstrap over cases.

    Args:
        values: (cases × 3), fractions; NaN where a case lacks a metric.
    """
    means = np.nanmean(values, axis=0)
    complete = values[np.isfinite(values).all(axis=1)]
    ends = bootstrap(complete, scores_of, seed=seed) if intervals and len(complete) else [None, None]
    if ends[0] == ends[1]:  # as where no edit at all succeeds: every resample is 0, which is no certainty
        ends = [None, None]
    return {"mean": float(scores_of(means)), "half_width": None, "interval": ends, "n": len(complete)}


def scores_of(means: np.ndarray) -> np.ndarray:
    """S of three means: 100 × their harmonic mean. The means are fractions of shape (3 × …); S has shape (…)."""
    some_zero = (means <= 0).any(axis=0)
    return np.where(some_zero, 0.0, 100 * _harmonic(np.where(some_zero, 1.0, means)))


def _harmonic(positive: np.ndarray) -> np.ndarray:
    """The harmonic mean over the first axis, as `scipy.stats.hmean`, whose import takes half a second."""
    return 1.0 / np.mean(1.0 / positive, axis=0)  # type: ignore[no-any-return]


def score_difference(one: np.ndarray, two: np.ndarray, *, seed: int) -> Statistics:
    """The difference of S with the percentile interval of a paired bootstrap.

    Args:
        one: the three parts of S (cases × 3) of the first editor.
        two: likewise of the second editor, on the same cases.
    """
    both = np.concatenate([one, two], axis=1)
    return {
        "mean": float(_score_gap(both.mean(axis=0))),
        "half_width": None,
        "interval": bootstrap(both, _score_gap, seed=seed),
        "n": len(one),
    }


def _score_gap(means: np.ndarray) -> np.ndarray:
    """The difference of S, from the three means of each of two editors (6 × …)."""
    return scores_of(means[:3]) - scores_of(means[3:])


def bootstrap(values: np.ndarray, score: Callable[[np.ndarray], np.ndarray], *, seed: int) -> list[float | None]:
    """The 95 % percentile bootstrap interval of a score of means. Cases are resampled `RESAMPLES` times.

    If all cases are equal, all resamples are, and nothing can be said: both ends are None.

    Args:
        values: (cases × k), without NaN.
        score: a function from means (k × resamples) to scores (resamples,).
        seed: seed of the resamples.
    """
    if (values == values[0]).all():
        return [None, None]
    n = len(values)
    drawn = _times_drawn(n, seed)
    chunks = (drawn[start : start + CHUNK].astype(float) for start in range(0, len(drawn), CHUNK))
    scores = np.concatenate([score((chunk @ values).T / n) for chunk in chunks])
    low, high = np.percentile(scores, [2.5, 97.5])
    return [float(low), float(high)]


@lru_cache(maxsize=4)
def _times_drawn(n: int, seed: int) -> NDArray[np.uint8]:
    """How often each of n cases is drawn in each resample (resamples × n).

    A report compares dozens of editors on the same cases, and all of them with the same resamples. These are the draws
    of `scipy.stats.bootstrap`, whose intervals are the same, but which draws again for each editor.
    """
    random = np.random.default_rng(seed)
    counts = np.empty((RESAMPLES, n), dtype=np.uint8)
    for start in range(0, RESAMPLES, CHUNK):
        for row, numbers in enumerate(random.integers(0, n, (CHUNK, n)), start=start):
            counts[row] = np.bincount(numbers, minlength=n)
    return counts


def flatten(summary: Summary) -> dict[str, Any]:
    """The summary as a flat mapping for a tracker: `post/ES`, `post/ES_half_width`, `pre/S`, …, and the two counts.

    The ends of the interval of a rate and of S are `post/ES_low` and `post/ES_high`.
    """
    flat: dict[str, Any] = {}
    for key, value in summary.items():
        if not isinstance(value, Mapping):
            flat[key] = ", ".join(value) if isinstance(value, list) else value
            continue
        for name, entry in value.items():
            flat[f"{key}/{name}"] = entry["mean"]
            low, high = entry.get("interval") or (None, None)
            more = {"half_width": entry["half_width"], "low": low, "high": high}
            flat |= {f"{key}/{name}_{what}": number for what, number in more.items() if number is not None}
    return flat
