"""Each metric of one case by hand (docs/method.md §5.3, §5.6)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romexp.analysis.metrics import (
    case_metrics,
    margin_of_new,
    margin_of_true,
    new_is_likelier,
    true_is_likelier,
)

LN2, LN4, LN10 = math.log(2), math.log(4), math.log(10)
"""Minus the logarithms of probabilities 0.5, 0.25 and 0.1."""

NLL = st.floats(0, 50)


def test_counterfact_by_hand() -> None:
    metrics = case_metrics(
        {
            "rewrite_prompts": [[LN2, LN10]],  # p(new) = 0.5, p(true) = 0.1
            "paraphrase_prompts": [[LN2, LN4], [LN10, LN2]],
            "neighborhood_prompts": [[LN2, LN4], [LN10, LN4], [LN10, LN2], [LN2, LN2]],
            "attribute_prompts": [[LN2, LN4]],
        }
    )
    assert metrics == pytest.approx(
        {
            "ES": 1.0,
            "EM": 0.4,
            "PS": 0.5,
            "PM": (0.25 - 0.4) / 2,
            "NS": 2 / 4,  # a tie is not a success
            "NM": (-0.25 + 0.15 + 0.4 + 0.0) / 4,
        }
    )


def test_generation_scores_are_taken_over() -> None:
    metrics = case_metrics({"ngram_entropy": 6.2, "reference_score": 0.31, "essence_score": 12.5, "text": ["a"]})
    assert metrics == {"GE": 6.2, "RS": 0.31, "essence": 12.5}


def test_zsre_by_hand() -> None:
    metrics = case_metrics(
        {
            "rewrite_prompts_correct": [True, True, False],
            "paraphrase_prompts_correct": [False, False, True],
            "neighborhood_prompts_correct": [True, False],
        }
    )
    assert metrics == pytest.approx({"Efficacy": 2 / 3, "Paraphrase": 1 / 3, "Specificity": 0.5})


def test_what_was_not_measured_is_left_out_not_zero() -> None:
    assert case_metrics({}) == {}
    assert case_metrics({"paraphrase_prompts": [], "reference_score": None, "rewrite_prompts_correct": []}) == {}


def test_a_null_nll_is_no_success_and_has_no_margin() -> None:
    metrics = case_metrics({"rewrite_prompts": [[None, 1.0]], "neighborhood_prompts": [[None, None], [LN10, LN2]]})
    assert metrics == {"ES": 0.0, "NS": 0.5}


@pytest.mark.parametrize("success", [new_is_likelier, true_is_likelier])
def test_a_tie_is_no_success(success: object) -> None:
    assert success([1.5, 1.5]) == 0.0  # type: ignore[operator]


@given(NLL, NLL)
def test_swapping_the_targets_swaps_the_metrics(a: float, b: float) -> None:
    assert new_is_likelier([a, b]) == true_is_likelier([b, a])
    assert margin_of_new([a, b]) == margin_of_true([b, a]) == -margin_of_true([a, b])
    assert new_is_likelier([a, b]) + true_is_likelier([a, b]) == float(a != b)
    assert -1 <= margin_of_new([a, b]) <= 1
    if margin_of_new([a, b]) != 0:
        assert (margin_of_new([a, b]) > 0) == bool(new_is_likelier([a, b]))
