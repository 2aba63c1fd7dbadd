"""Averages by hand, against the published table, and under what runs really leave behind."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hmean

from romexp.analysis.summary import case_frame, flatten, harmonic_mean, scores_of, statistics, summarize, summarize_side
from romexp.results.rows import CaseResult

LN2, LN4, LN10 = math.log(2), math.log(4), math.log(10)
POSITIVE = st.lists(st.floats(1e-300, 100), min_size=1, max_size=6)

YES, NO = [LN2, LN10], [LN10, LN2]


def side(rewrite: list[float], paraphrases: list[list[float]], neighbours: list[list[float]], **more: Any) -> dict:
    return {
        "rewrite_prompts": [rewrite],
        "paraphrase_prompts": paraphrases,
        "neighborhood_prompts": neighbours,
        **more,
    }


def results(*rows: dict[str, Any]) -> list[CaseResult]:
    """What lines of `cases.jsonl` become."""
    return [CaseResult.from_json(row) for row in rows]


ROWS = [
    {"case_id": 7, "pre": side(NO, [NO, NO], [NO, NO]), "post": side(YES, [YES, NO], [NO, YES], ngram_entropy=6.0)},
    {"case_id": 2, "pre": side(NO, [NO, YES], [NO, NO]), "post": side(YES, [YES, YES], [NO, NO], ngram_entropy=5.0)},
    {"case_id": 5, "pre": side(YES, [NO, NO], [NO, YES]), "post": side(NO, [YES, YES], [NO, NO], essence_score=8.0)},
]
RESULTS = results(*ROWS)


def test_statistics_by_hand() -> None:
    out = statistics(np.array([1.0, 0.0, 1.0, 1.0, np.nan]))
    assert out["n"] == 4  # the actual number, not the nominal one
    assert out["mean"] == pytest.approx(75)
    assert out["std"] == pytest.approx(100 * math.sqrt(3) / 4)  # population: divides by 4, not by 3
    assert out["half_width"] == pytest.approx(1.96 * 25 * math.sqrt(3) / 2)


def test_summary_by_hand() -> None:
    summary = summarize(RESULTS)
    assert (summary["n_cases"], summary["n_failed"]) == (3, 0)
    means = {name: entry["mean"] for name, entry in summary["post"].items()}
    es, ps, ns = 200 / 3, 100 * 2.5 / 3, 100 * 2.5 / 3
    assert means == pytest.approx(
        {
            "S": 3 / (1 / es + 1 / ps + 1 / ns),
            "ES": es,
            "EM": 100 * (0.4 + 0.4 - 0.4) / 3,
            "PS": ps,
            "PM": 100 * (0.0 + 0.4 + 0.4) / 3,
            "NS": ns,
            "NM": 100 * (0.0 + 0.4 + 0.4) / 3,
            "GE": 550,  # of the two cases that have it
            "essence": 8,  # not times 100
        }
    )
    assert summary["post"]["GE"]["n"] == 2
    assert summary["post"]["GE"]["half_width"] == pytest.approx(1.96 * 50 / math.sqrt(2))
    assert summary["post"]["S"]["half_width"] is None
    assert "GE" not in summary["pre"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_score_is_of_the_means_not_the_mean_of_scores() -> None:
    values = {"ES": np.array([1.0, 0.0]), "PS": np.array([0.0, 1.0]), "NS": np.array([1.0, 1.0])}
    assert summarize_side(values)["S"]["mean"] == pytest.approx(300 / (2 + 2 + 1))  # each case's own score would be 0


@pytest.mark.parametrize(
    ("parts", "score"),
    [
        ((22.2, 24.7, 78.1), 30.5),  # GPT-2 XL
        ((100.0, 96.4, 75.4), 89.2),  # ROME
        ((99.9, 95.8, 6.9), 18.1),  # KE-CF
        ((16.3, 18.6, 83.0), 23.6),  # GPT-J
    ],
)
def test_the_published_scores(parts: tuple[float, float, float], score: float) -> None:
    assert harmonic_mean(parts) == pytest.approx(score, abs=0.1)


def test_a_zero_part_makes_the_score_zero() -> None:
    assert harmonic_mean([0.0, 100.0, 100.0]) == 0.0
    summary = summarize(results({"case_id": 0, "pre": side(NO, [NO], [NO]), "post": side(YES, [YES], [YES])}))
    assert summary["pre"]["S"]["mean"] == 0.0 == summary["post"]["S"]["mean"]
    assert summary["pre"]["S"]["interval"] == [None, None]  # one case says nothing of others


def test_scores_are_those_of_scipy() -> None:
    means = np.random.default_rng(0).random((3, 10_000))
    assert np.array_equal(scores_of(means), 100 * hmean(means, axis=0))
    assert harmonic_mean(means[:, 0]) == hmean(means[:, 0])


def test_a_harmonic_mean_needs_non_negative_numbers() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        harmonic_mean([1.0, -1.0])
    with pytest.raises(ValueError, match="non-negative"):
        harmonic_mean([])


@given(POSITIVE)
def test_harmonic_mean_lies_between_the_least_and_the_arithmetic_mean(values: list[float]) -> None:
    value = harmonic_mean(values)
    assert min(values) * (1 - 1e-9) <= value <= np.mean(values) * (1 + 1e-9)
    assert harmonic_mean(values[::-1]) == pytest.approx(value)


def test_no_score_without_its_three_parts() -> None:
    only = results({"case_id": 0, "pre": {"rewrite_prompts": [NO]}, "post": {"rewrite_prompts": [YES]}})
    assert set(summarize(only)["post"]) == {"ES", "EM"}


def test_zsre() -> None:
    def accuracies(a: list[bool], b: list[bool], c: list[bool]) -> dict[str, list[bool]]:
        keys = ("rewrite_prompts_correct", "paraphrase_prompts_correct", "neighborhood_prompts_correct")
        return dict(zip(keys, (a, b, c), strict=True))

    rows = [
        {"case_id": 0, "pre": accuracies([False], [False], [True]), "post": accuracies([True], [True, False], [True])},
        {"case_id": 1, "pre": accuracies([True], [False], [True]), "post": accuracies([True], [True, True], [False])},
    ]
    post = {name: entry["mean"] for name, entry in summarize(results(*rows))["post"].items()}
    expected = {"S": 3 / (1 / 100 + 1 / 75 + 1 / 50), "Efficacy": 100, "Paraphrase": 75, "Specificity": 50}
    assert post == pytest.approx(expected)


def test_failed_cases_are_left_out_of_both_sides_and_counted() -> None:
    failed = results(
        {"case_id": 8, "pre": side(YES, [YES], [YES]), "error": "no such subject"},
        {"case_id": 9, "pre": side(YES, [YES], [YES]), "post": None},
        {"case_id": 10},
    )
    whole, partial = summarize(RESULTS), summarize(RESULTS + failed)
    assert (partial["n_cases"], partial["n_failed"]) == (3, 3)
    assert (partial["pre"], partial["post"]) == (whole["pre"], whole["post"])
    assert summarize(failed) == {"n_cases": 0, "n_failed": 3, "pre": {}, "post": {}}
    assert summarize([]) == {"n_cases": 0, "n_failed": 0, "pre": {}, "post": {}}


def test_a_run_without_edits_has_one_side() -> None:
    unedited = results(*({"case_id": row["case_id"], "pre": row["pre"]} for row in ROWS))
    summary = summarize(unedited, sides=("pre",))
    assert summary["n_cases"] == 3
    assert summary["pre"] == summarize(RESULTS)["pre"]
    assert "post" not in summary


def test_order_does_not_matter() -> None:
    a, b = summarize(RESULTS), summarize(RESULTS[::-1])
    assert a == b


def test_the_frame_has_a_case_a_line(tmp_path: Any) -> None:
    frame = case_frame([*RESULTS, *results({"case_id": 3, "pre": side(NO, [NO], [NO])})])
    assert frame["case_id"].tolist() == [2, 3, 5, 7]
    assert frame["complete"].tolist() == [True, False, True, True]
    assert list(frame.columns) == [
        "case_id",
        "complete",
        *(f"pre/{name}" for name in ("ES", "EM", "PS", "PM", "NS", "NM")),
        *(f"post/{name}" for name in ("ES", "EM", "PS", "PM", "NS", "NM", "GE", "essence")),
    ]
    assert frame.set_index("case_id").loc[7, "post/PS"] == 0.5
    assert np.isnan(frame.set_index("case_id").loc[3, "post/ES"])
    frame.to_parquet(tmp_path / "cases.parquet", index=False)


def test_the_bootstrap_interval_is_seeded_holds_the_score_and_narrows() -> None:
    rng = np.random.default_rng(0)

    def score(n: int) -> dict[str, Any]:
        values = {"ES": rng.random(n) < 0.9, "PS": rng.random(n) < 0.8, "NS": rng.random(n) < 0.7}
        return summarize_side({name: v.astype(float) for name, v in values.items()})["S"]

    few, many = score(30), score(3000)
    for entry in (few, many):
        low, high = entry["interval"]
        assert low < entry["mean"] < high
    assert many["interval"][1] - many["interval"][0] < (few["interval"][1] - few["interval"][0]) / 3
    values = {name: rng.random(50) for name in ("ES", "PS", "NS")}
    same, again, other = (summarize_side(values, seed=seed)["S"] for seed in (4, 4, 5))
    assert same == again
    assert same["interval"] != other["interval"]


def test_the_bootstrap_interval_has_about_the_normal_width() -> None:
    """Where the three metrics are one, S is their mean and the normal half-width holds."""
    values = (np.random.default_rng(1).random(2000) < 0.6).astype(float)
    out = summarize_side({"ES": values, "PS": values, "NS": values})
    low, high = out["S"]["interval"]
    assert (high - low) / 2 == pytest.approx(out["ES"]["half_width"], rel=0.1)


def test_flat_names_are_the_papers() -> None:
    flat = flatten(summarize(RESULTS))
    assert flat["n_cases"] == 3
    assert flat["post/ES"] == pytest.approx(200 / 3)
    assert flat["post/ES_half_width"] > 0
    assert {"pre/S", "post/S", "post/GE"} <= set(flat)
    assert "post/S_half_width" not in flat
    assert all(isinstance(value, int | float) for value in flat.values())
