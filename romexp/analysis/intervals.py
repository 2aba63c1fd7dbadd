"""95 % intervals of rates, and the ends of the interval that statistics hold (docs/method.md §5.7)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Z_95 = 1.96


def score_interval(values: np.ndarray, *, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """Wilson's 95 % score interval for the mean of values between `low` and `high`, one value for each case.

    For values that are all 0 or 1 it is exactly Wilson's interval. Where a value is itself a mean of several outcomes,
    cases tell more than n single outcomes would. So n is replaced by n·p(1−p)/s², the effective number of outcomes,
    with mean p and variance s² taken after adding z²/2 cases of 0 and z²/2 cases of 1. These are the cases by which
    Wilson's interval moves its centre; with them s² is never 0, and no number of equal cases gives a width of 0.

    Args:
        values: (cases,), without NaN; at least one.
        low: the smallest possible value; for differences of two rates it is -1.
        high: the largest possible value.

    Returns:
        Both ends, between `low` and `high`.
    """
    x = (values - low) / (high - low)
    n, p = len(x), float(x.mean())
    half = Z_95**2 / 2
    center = (n * p + half) / (n + 2 * half)
    variance = (float(np.square(x).sum()) + half) / (n + 2 * half) - center**2
    effective = n * center * (1 - center) / variance
    share = Z_95**2 / effective
    middle = (p + share / 2) / (1 + share)
    reach = math.sqrt(share * p * (1 - p) + share**2 / 4) / (1 + share)
    ends = (max(middle - reach, 0.0), min(middle + reach, 1.0))
    # Rounding must not put the mean outside, as at 0 and 1, where it is one of the ends.
    below, above = min(ends[0], p), max(ends[1], p)
    return low + (high - low) * below, low + (high - low) * above


def interval_of(entry: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Both ends of the 95 % interval of a metric's statistics; None if nothing can be said.

    It is the score interval of a rate, the bootstrap interval of S, and mean ± half-width of all other metrics.
    """
    if entry.get("interval") is not None:
        low, high = entry["interval"]
        return low, high
    half_width = half_width_of(entry)
    return (None, None) if half_width is None else (entry["mean"] - half_width, entry["mean"] + half_width)


def half_width_of(entry: Mapping[str, Any]) -> float | None:
    """The paper's half-width 1.96·std/√n; None if there is only one case, whose deviation says nothing."""
    return None if entry.get("n") == 1 else entry.get("half_width")


def reach_of(entry: Mapping[str, Any]) -> float | None:
    """How far the 95 % interval reaches from the mean, on the side where it is longer; None if nothing can be said."""
    low, high = interval_of(entry)
    return None if low is None or high is None else max(entry["mean"] - low, high - entry["mean"])
