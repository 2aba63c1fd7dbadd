"""Returned files: good ones become rankings, bad ones are named and set aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from human_cases import answers, questionnaire, write

from romexp.errors import DataError
from romexp.human_eval.answers import answer_files, questionnaires_named, read_answers

KEY: dict[str, Any] = questionnaire().key()
FIRST = str(KEY["plan"][0][0])
ELSEWHERE = next(str(i["id"]) for i in KEY["items"] if i["id"] not in KEY["plan"][0])


def test_ranks_are_given_to_the_systems_that_wrote_the_texts(tmp_path: Path) -> None:
    files = [write(tmp_path, answers(KEY, participant)) for participant in (1, 2, 8)]
    read = read_answers(files, KEY)
    assert (len(read.rankings), read.files, read.set_aside) == (3 * 4 * 2, tuple(files), ())
    assert all(ranking.ranks == {"rome": 1, "ft_l": 2, "unedited": 3} for ranking in read.rankings)
    judged = {ranking.case_id for ranking in read.rankings if ranking.participant == 8}
    planned = {i["case_id"] for i in KEY["items"] if i["id"] in KEY["plan"][1]}
    assert judged == planned, "the eighth of six gets the second plan"


def broken(change: str) -> dict[str, Any]:
    content = answers(KEY, 1)
    ranks = content["rankings"]
    if change == "missing case":
        del ranks[FIRST]
    elif change == "unknown case":
        ranks["99"] = ranks[FIRST]
    elif change == "not asked":
        ranks[ELSEWHERE] = ranks[FIRST]
    elif change == "out of range":
        ranks[FIRST]["fluency"] = [1, 2, 4]
    elif change == "twice":
        ranks[FIRST]["consistency"] = [1, 1, 2]
    elif change == "open":
        ranks[FIRST]["consistency"] = [1, None, None]
    elif change == "too few":
        ranks[FIRST]["consistency"] = [1, 2]
    elif change == "no measure":
        del ranks[FIRST]["fluency"]
    elif change == "other questionnaire":
        content["questionnaire"] = "0" * 12
    elif change == "no participant":
        content["participant"] = 0
    return content


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("missing case", f"no answer for 1 of 4 cases: {FIRST}"),
        ("unknown case", "there is no case 99"),
        ("not asked", f"participant 1 was not asked about case {ELSEWHERE}"),
        ("out of range", f"case {FIRST}, fluency: expected each rank of 1 to 3 once, not [1, 2, 4]"),
        ("twice", f"case {FIRST}, consistency: expected each rank of 1 to 3 once"),
        ("open", f"rankings.{FIRST}.consistency.1: Input should be a valid integer"),
        ("too few", f"case {FIRST}, consistency: expected each rank of 1 to 3 once, not [1, 2]"),
        ("no measure", f"rankings.{FIRST}.fluency: Field required"),
        ("other questionnaire", f"answers questionnaire 000000000000, not {KEY['questionnaire']}"),
        ("no participant", "participant: Input should be greater than or equal to 1"),
    ],
)
def test_a_bad_file_is_named_and_the_others_count(tmp_path: Path, change: str, reason: str) -> None:
    bad, good = write(tmp_path, broken(change), "bad.json"), write(tmp_path, answers(KEY, 2))
    read = read_answers([bad, good], KEY)
    assert read.files == (good,)
    assert len(read.rankings) == 8
    (line,) = read.set_aside
    assert line.startswith("bad.json: ")
    assert reason in line


def test_no_json_at_all(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    read = read_answers([tmp_path / "x.json"], KEY)
    assert read.rankings == ()
    assert "Invalid JSON" in read.set_aside[0]


def test_who_answers_twice_counts_once_with_the_later_file(tmp_path: Path) -> None:
    old = write(tmp_path, answers(KEY, 1) | {"saved": "2026-01-01T08:00:00Z"}, "b.json")
    new = write(tmp_path, answers(KEY, 1) | {"saved": "2026-01-02T08:00:00Z"}, "a.json")
    for files in ([old, new], [new, old]):
        read = read_answers(files, KEY)
        assert read.files == (new,)
        assert read.set_aside == ("b.json: participant 1 answered again in a.json",)
        assert len(read.rankings) == 8


def test_files_are_found(tmp_path: Path) -> None:
    one = write(tmp_path, answers(KEY, 1))
    write(tmp_path, KEY, "key.json")
    assert answer_files(tmp_path) == [one]
    assert answer_files(one) == [one]
    assert questionnaires_named([one, tmp_path / "key.json"]) == [KEY["questionnaire"]]
    with pytest.raises(DataError, match="no file or folder"):
        answer_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.json file"):
        answer_files(tmp_path / "empty")
