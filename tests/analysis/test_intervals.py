"""Intervals of rates: Wilson's where it is defined, never of width 0, and true as often as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from romexp.analysis.intervals import interval_of, reach_of, score_interval
from romexp.analysis.summary import flatten, metric_statistics, summarize
from romexp.results.rows import CaseResult

YES, NO = [0.7, 2.3], [2.3, 0.7]
"""A pair of NLLs with which an edit succeeds, and one with which it fails."""


def result(case_id: int, *, works: bool = True) -> CaseResult:
    after = YES if works else NO
    row: dict[str, Any] = {"case_id": case_id, "pre": side(NO), "post": side(after)}
    return CaseResult.from_json(row)


def side(pair: list[float]) -> dict[str, Any]:
    return {
        "rewrite_prompts": [pair],
        "paraphrase_prompts": [pair, YES],
        "neighborhood_prompts": [NO] * 10,
        "ngram_entropy": 6.2,
    }


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_it_is_wilsons_where_every_value_is_0_or_1(counts: tuple[int, int]) -> None:
    k, n = counts
    found = score_interval(np.repeat([1.0, 0.0], [k, n - k]))
    wilson = binomtest(k, n).proportion_ci(method="wilson")
    assert found == pytest.approx((wilson.low, wilson.high), abs=1e-4)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40))
def test_it_holds_the_mean_and_is_never_of_width_0(values: list[float]) -> None:
    low, high = score_interval(np.array(values))
    assert 0 <= low <= np.mean(values) <= high <= 1
    assert high - low > 0.01
    narrow = score_interval(np.tile(values, 100))
    assert narrow[1] - narrow[0] < high - low


def test_several_outcomes_of_a_case_tell_more_than_one_and_less_than_as_many_cases() -> None:
    rng = np.random.default_rng(0)
    means = rng.binomial(10, 0.8, size=200) / 10
    width = np.ptp(score_interval(means))
    assert np.ptp(score_interval(np.repeat([1.0, 0.0], [1600, 400]))) < width
    assert width < 0.6 * np.ptp(score_interval(np.repeat([1.0, 0.0], [160, 40])))
    assert width == pytest.approx(2 * 1.96 * means.std() / np.sqrt(200), rel=0.2)  # as for any mean, far from 0 and 1


@pytest.mark.parametrize(("n", "outcomes"), [(10, 1), (30, 10), (100, 2)])
def test_95_of_100_intervals_hold_the_truth_also_near_1(n: int, outcomes: int) -> None:
    """Where cases differ. The control is the half-width 1.96·σ/√n, which is far too small there."""
    rng, truth = np.random.default_rng(n), 0.95
    p = rng.beta(truth * 4, (1 - truth) * 4, size=(1000, n))
    draws = rng.binomial(outcomes, p) / outcomes
    held = [low <= truth <= high for low, high in map(score_interval, draws)]
    normal = abs(draws.mean(axis=1) - truth) <= 1.96 * draws.std(axis=1) / np.sqrt(n)
    assert np.mean(held) > 0.9
    assert normal.mean() < np.mean(held) - 0.01


def test_one_case_says_little_of_rates_and_nothing_of_other_metrics() -> None:
    post = summarize([result(0)])["post"]
    assert post["ES"]["interval"] == pytest.approx([20.65, 100], abs=0.01)
    assert reach_of(post["ES"]) == pytest.approx(79.35, abs=0.01)
    assert post["EM"]["half_width"] is post["GE"]["half_width"] is None
    assert interval_of(post["EM"]) == (None, None)
    assert post["S"]["interval"] == [None, None]
    flat = flatten({"post": post})
    assert "post/EM_half_width" not in flat
    assert flat["post/ES_low"] == pytest.approx(20.65, abs=0.01)


def test_rates_keep_the_papers_half_width_beside_their_interval() -> None:
    post = summarize([result(i, works=i > 0) for i in range(4)])["post"]
    assert post["ES"]["half_width"] == pytest.approx(1.96 * post["ES"]["std"] / 2)
    assert interval_of(post["ES"]) == tuple(post["ES"]["interval"])
    assert "interval" not in post["EM"]


def test_differences_of_rates_lie_between_minus_and_plus_100() -> None:
    equal = metric_statistics({"ES": np.zeros(50), "EM": np.zeros(50)}, least_rate=-1.0)
    low, high = interval_of(equal["ES"])
    assert low == pytest.approx(-(high or 0))
    assert 1 < (high or 0) < 15, "equal on fifty cases is not equal for ever"
    one = metric_statistics({"ES": np.ones(1)}, least_rate=-1.0)["ES"]
    assert interval_of(one)[0] < 0, "one case is no evidence"  # type: ignore[operator]
    many = metric_statistics({"ES": np.ones(20)}, least_rate=-1.0)["ES"]
    assert interval_of(many)[0] > 50  # type: ignore[operator]
