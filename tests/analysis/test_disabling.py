"""Edits that disable a model are found by two signs, and named."""

from __future__ import annotations

import math

import pytest

from romexp.analysis.disabling import edit_signs, with_flags
from romexp.facts import EditRequest
from romexp.results.rows import CaseResult


def result(case_id: int, *, update: float | None, text: str = "", before: str = "a b c d") -> CaseResult:
    return CaseResult(
        case_id=case_id,
        request=EditRequest(subject=f"S{case_id}", prompt="{} is", target_new="x", target_true="y"),
        before={"text": [before]} if text else {},
        after={"text": [text]} if text else {},
        edit={} if update is None else {"update_norm": update},
    )


def test_two_signs() -> None:
    """Ordinary edits differ a little. One is large alone, one is poor alone, one is both."""
    usual = [result(i, update=1 + 0.05 * (i % 5), text="a b c d e"[: 7 + i % 2]) for i in range(20)]
    odd = [
        result(20, update=50.0, text="a b c d"),
        result(21, update=1.0, text="a a a a a a a a a b"),
        result(22, update=50.0, text="a a a a a a a a a b"),
    ]
    found = with_flags(edit_signs([*usual, *odd])).set_index("case_id")
    assert found.index[found["large"]].tolist() == [20, 22]
    assert found.index[found["poor"]].tolist() == [21, 22]
    assert found.index[found["disabling"]].tolist() == [22]
    assert found.loc[22, "subject"] == "S22"
    nine = -0.9 * math.log2(0.9) - 0.1 * math.log2(0.1)
    assert found.loc[22, "entropy"] == pytest.approx(nine)


def test_without_texts_size_decides_and_without_size_nothing_does() -> None:
    found = with_flags(edit_signs([*(result(i, update=1 + 0.1 * i) for i in range(9)), result(9, update=1e6)]))
    assert found["disabling"].tolist() == [False] * 9 + [True]
    found = with_flags(edit_signs([result(i, update=None) for i in range(3)]))
    assert not found["disabling"].any()
    assert with_flags(edit_signs([])).empty
