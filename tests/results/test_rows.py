"""Reading `cases.jsonl` as a killed run left it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from romexp.errors import DataError
from romexp.results.rows import complete, mend, read_rows

ROWS = [{"case_id": i, "pre": {"text": [f"Zoë {i}\n\u2028"]}, "post": {}} for i in range(3)]
TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def test_a_file_cut_anywhere_gives_its_whole_rows_and_can_be_continued(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    ends = [i for i, byte in enumerate(TEXT) if byte == ord("\n")]
    for cut in range(len(TEXT) + 1):
        path.write_bytes(TEXT[:cut])
        whole = sum(end <= cut for end in ends)  # a row counts once its closing brace is there
        assert read_rows(path) == ROWS[:whole]
        mend(path)
        with path.open("ab") as file:
            file.write(b'{"case_id": 99}\n')
        assert read_rows(path) == [*ROWS[:whole], {"case_id": 99}]


def test_a_case_tried_again_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    lines = [{"case_id": 1, "error": "no"}, {"case_id": 2}, {"case_id": 1, "pre": {}, "post": {}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_rows(path) == [lines[2], lines[1]]


@pytest.mark.parametrize("line", ['{"case_id": 1, "pre"', "[1, 2]", '{"pre": {}}', '{"case_id": "1"}'])
def test_a_bad_line_in_the_middle_is_an_error_that_says_where(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"case_id": 0}\n\n' + line + '\n{"case_id": 2}\n')
    with pytest.raises(DataError, match=r"cases.jsonl, line 3: expected a JSON object with an integer case_id"):
        read_rows(path)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        read_rows(tmp_path / "cases.jsonl")


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.touch()
    assert read_rows(path) == []
    mend(path)
    assert path.read_bytes() == b""


def test_a_case_is_complete_when_measured_on_every_side() -> None:
    row = {"case_id": 1, "pre": {"rewrite_prompts": []}, "post": None}
    assert complete(row, ["pre"])
    assert not complete(row, ["pre", "post"])
