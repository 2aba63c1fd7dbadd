"""Means right after each edit, at the end, and in between."""

from __future__ import annotations

import pytest

from romexp.analysis.lifelong import lifelong_frame, summarize_lifelong
from romexp.results.rows import Row


def row(case_id: int, edited_at: int, measured_at: int, success: bool) -> Row:
    pair = [1.0, 2.0] if success else [2.0, 1.0]
    before = {"rewrite_prompts": [[2.0, 1.0]]}
    measured = {"case_id": case_id, "pre": before, "post": {"rewrite_prompts": [pair]}}
    return {**measured, "edited_at": edited_at, "measured_at": measured_at}


ROWS = [
    *(row(i, 2, 2, True) for i in (0, 1)),
    *(row(i, 4, 4, True) for i in (2, 3)),
    *(row(i, 2, 4, i == 0) for i in (0, 1)),
    *(row(i, 6, 6, i == 4) for i in (4, 5)),
    *(row(i, 2 + 2 * (i // 2), 6, False) for i in (0, 1, 2, 3)),
]


def test_the_parts_of_the_summary() -> None:
    summary = summarize_lifelong(lifelong_frame(ROWS))
    assert (summary["n_cases"], summary["n_failed"], summary["n_edits"]) == (6, 0, 6)
    assert summary["pre"]["ES"] == {**summary["pre"]["ES"], "mean": 0.0, "n": 6}
    assert summary["immediate"]["ES"]["mean"] == pytest.approx(100 * 5 / 6)
    assert summary["final"]["ES"]["mean"] == pytest.approx(100 * 1 / 6)
    assert [(part["measured_at"], part["n_cases"]) for part in summary["retention"]] == [(4, 4), (6, 6)]
    assert [part["post"]["ES"]["mean"] for part in summary["retention"]] == [75.0, pytest.approx(100 / 6)]


def test_one_step_is_both() -> None:
    summary = summarize_lifelong(lifelong_frame(ROWS[:2]))
    assert summary["immediate"] == summary["final"]
    assert summary["retention"] == []


def test_the_frame_says_when() -> None:
    frame = lifelong_frame(ROWS)
    assert list(frame.columns[:4]) == ["case_id", "edited_at", "measured_at", "complete"]
    assert len(frame) == len(ROWS)
    assert frame[frame["case_id"] == 1][["edited_at", "measured_at"]].values.tolist() == [[2, 2], [2, 4], [2, 6]]
