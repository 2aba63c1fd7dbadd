"""The tracker's table of cases: percent as in the summary, prompts with their subjects, generated texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from romexp.analysis.running import running_means
from romexp.analysis.summary import case_frame, case_record, summarize_frame
from romexp.results.rows import CaseResult
from romexp.tasks.edit_results import tracked_table
from romexp.tasks.tracked_end import report_texts
from romexp.trackers.csv_files import CsvTracker

REQUEST = {"subject": "Ada", "prompt": "{} lives in", "target_new": "Oslo", "target_true": "Rome"}


def case(case_id: int, *, works: bool, texts: bool = True) -> CaseResult:
    def side(new: float, who: str) -> dict[str, Any]:
        measured: dict[str, Any] = {"rewrite_prompts": [[new, 1.0]], "essence_score": 8.0, "ngram_entropy": 6.2}
        return measured | ({"text": [f"{who} one", f"{who} two"]} if texts else {})

    row = {"case_id": case_id, "requested_rewrite": REQUEST, "pre": side(2.0, "before")}
    return CaseResult.from_json(row | {"post": side(0.1 if works else 2.0, "after")})


def lines(*cases: CaseResult) -> list[dict[str, Any]]:
    columns, cells = tracked_table(cases, case_frame(cases))
    return [dict(zip(columns, row, strict=True)) for row in cells]


def test_its_numbers_are_those_whose_means_the_summary_shows() -> None:
    cases = [case(3, works=True), case(1, works=False), case(2, works=True)]
    shown = lines(*cases)
    assert [line["case_id"] for line in shown] == [1, 2, 3]
    summary = summarize_frame(case_frame(cases))
    for side in ("pre", "post"):
        for name, statistics in summary[side].items():
            assert sum(line[f"{side}/{name}"] for line in shown) / 3 == pytest.approx(statistics["mean"]), name
    assert [line["post/ES"] for line in shown] == [0.0, 100.0, 100.0]
    assert shown[0]["post/GE"] == pytest.approx(620)
    assert shown[0]["post/essence"] == 8.0


def test_its_texts_can_be_read_alone() -> None:
    (line,) = lines(case(0, works=True))
    assert line["prompt"] == "Ada lives in"
    assert line["pre/text"] == "before one\n\nbefore two"
    assert line["post/text"] == "after one\n\nafter two"
    (without,) = lines(case(0, works=True, texts=False))
    assert not {"pre/text", "post/text"} & set(without)


def test_what_a_case_lacks_is_empty() -> None:
    failed = CaseResult.from_json(
        {"case_id": 1, "requested_rewrite": REQUEST, "pre": {"rewrite_prompts": [[2.0, 1.0]]}}
    )
    shown = lines(case(0, works=True), failed)
    assert shown[1]["post/ES"] is None
    assert shown[1]["post/text"] == ""


def test_texts_of_a_sample(tmp_path: Path) -> None:
    cases = [case(3, works=True), case(1, works=True), case(2, works=True), case(4, works=True, texts=False)]
    with CsvTracker().run(folder=tmp_path, name="n", group="g", job_type="edit", config={}) as tracked:
        report_texts(tracked, cases, {1, 3, 4})
    found = pd.read_csv(tmp_path / "csv" / "texts.csv")
    assert found["case_id"].tolist() == [1, 1, 3, 3]
    assert found["pre/text"].tolist() == ["before one", "before two"] * 2
    assert found["post/text"].tolist() == ["after one", "after two"] * 2
    assert set(found["target_new"]) == {"Oslo"}


def test_no_texts_no_table(tmp_path: Path) -> None:
    with CsvTracker().run(folder=tmp_path, name="n", group="g", job_type="edit", config={}) as tracked:
        report_texts(tracked, [case(1, works=True, texts=False)], {1})
        report_texts(tracked, [case(1, works=True)], set())
    assert not (tmp_path / "csv" / "texts.csv").exists()


def test_a_mean_over_fewer_cases_says_so() -> None:
    """The second case was not measured on the texts."""
    both, other = case(1, works=True), case(2, works=False)
    other = replace(other, after={key: value for key, value in (other.after or {}).items() if key != "ngram_entropy"})
    count, means = running_means([case_record(both), case_record(other)])
    assert count == 2
    assert (means["post/ES"], means["post/GE"], means["post/GE_n"]) == (50.0, pytest.approx(620), 1)
    assert "post/ES_n" not in means
