"""Means right after each edit, at the end, and in between."""

from __future__ import annotations

import pytest

from romexp.analysis.lifelong import lifelong_frame, retention_by_age, scores_by_edits, summarize_lifelong
from romexp.analysis.published_lifelong import published_sequences
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


def test_scores_by_number_of_edits() -> None:
    """Only times at which all cases edited so far were measured: the frame lacks nothing at 2, 4 and 6."""
    frame = lifelong_frame(ROWS)
    found = [(point["edits"], point["n_cases"], point["post"]["ES"]["mean"]) for point in scores_by_edits(frame)]
    assert found == [(2, 2, 100.0), (4, 4, 75.0), (6, 6, pytest.approx(100 / 6))]
    part = frame[~((frame["measured_at"] == 4) & (frame["case_id"] == 0))]
    assert [point["edits"] for point in scores_by_edits(part)] == [2, 6]


def test_what_is_left_after_later_edits() -> None:
    found = retention_by_age(lifelong_frame(ROWS))
    # 0: right after. 2 later edits: cases 0 and 1 at 4, cases 2 and 3 at 6. 4 (class 5): cases 0 and 1 at 6.
    assert [(point["later_edits"], point["n"]) for point in found] == [(0.0, 6), (2.0, 4), (4.0, 2)]
    assert [point["post"]["ES"]["mean"] for point in found] == [pytest.approx(500 / 6), 25.0, 0.0]


def test_published_sequences_stand_beside_their_own_settings_only() -> None:
    found = published_sequences(model="gpt2-xl", dataset="counterfact", edits=2000, step=100)
    assert found["alphaedit"] == {"ES": 99.50, "PS": 93.95, "NS": 66.39, "GE": 597.88, "RS": 39.38}
    assert set(found) == {"none", "memit", "alphaedit"}
    assert published_sequences(model="gpt2-xl", dataset="zsre", edits=2000, step=100)["memit"]["Efficacy"] == 79.17
    for other in ({"model": "gpt2"}, {"dataset": "minifact"}, {"edits": 1000}, {"step": 1}):
        settings = {"model": "gpt2-xl", "dataset": "counterfact", "edits": 2000, "step": 100, **other}
        assert published_sequences(**settings) == {}  # type: ignore[arg-type]
