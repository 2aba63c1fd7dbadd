"""Reading `cases.jsonl` as a killed run left it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from romexp.errors import DataError
from romexp.facts import EditRequest
from romexp.results.rows import CaseResult, edit_row_fault, read_rows, set_damaged_lines_aside

ROWS = [{"case_id": i, "pre": {"text": [f"Zoë {i}\n\u2028"]}, "post": {}} for i in range(3)]
TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def test_a_file_cut_anywhere_gives_its_whole_rows_and_can_be_continued(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    ends = [i for i, byte in enumerate(TEXT) if byte == ord("\n")]
    for cut in range(len(TEXT) + 1):
        path.write_bytes(TEXT[:cut])
        whole = sum(end <= cut for end in ends)  # a row counts once its closing brace is there
        assert read_rows(path) == ROWS[:whole]
        set_damaged_lines_aside(path)
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


@pytest.mark.parametrize(
    "line", [b'{"case_id": 1, "pre"', b"\xff\xfe", b"[" * 5000, b'{"case_id": 18446744073709551616}']
)
def test_a_damaged_line_is_moved_away_and_the_others_stay(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b'{"case_id": 0}\n' + line + b'\n{"case_id": 2}\n{"case_id"')
    assert set_damaged_lines_aside(path) == [2]
    assert path.read_bytes() == b'{"case_id": 0}\n{"case_id": 2}\n'
    assert (tmp_path / "cases.jsonl.damaged").read_bytes() == line + b"\n"
    assert set_damaged_lines_aside(path) == []


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        read_rows(tmp_path / "cases.jsonl")


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.touch()
    assert read_rows(path) == []
    set_damaged_lines_aside(path)
    assert path.read_bytes() == b""


RESULT = CaseResult(
    case_id=7,
    request=EditRequest(
        subject="Zoë", prompt="{} lives in", target_new="Oslo", target_true="Rome", relation_id="P1", target_new_id="Q2"
    ),
    prompts={"rewrite_prompts": ["Zoë lives in"], "generation_prompts": ["Zoë", "Zoë"]},
    before={"rewrite_prompts": [[2.5, None]], "notes": ["an NLL that is not finite"]},
    after={"rewrite_prompts": [[0.5, 3.0]]},
    edit={"layer": 3, "loss": [1.0, 0.5]},
    seconds=0.25,
)


class TestCaseResult:
    def test_comes_back_from_its_line_as_it_was(self) -> None:
        line = json.dumps(RESULT.to_json(), ensure_ascii=False, allow_nan=False)
        assert CaseResult.from_json(json.loads(line)) == RESULT

    def test_its_line_has_the_names_of_the_file_format(self) -> None:
        """docs/method.md §11."""
        row = RESULT.to_json()
        assert list(row) == ["case_id", "requested_rewrite", "prompts", "pre", "post", "edit", "time"]
        assert row["requested_rewrite"]["target_new"] == "Oslo"
        assert (row["pre"], row["post"], row["time"]) == (RESULT.before, RESULT.after, 0.25)

    def test_what_a_line_does_not_say_is_empty(self) -> None:
        """A case that failed, and rows that were written before they had all parts."""
        bare = CaseResult.from_json({"case_id": 3, "post": None, "error": "no"})
        assert (bare.case_id, bare.request.subject, bare.request.text) == (3, "", "")
        assert (bare.before, bare.after, bare.prompts, bare.edit, bare.seconds) == (None, None, {}, {}, 0.0)

    def test_prompts_that_are_no_list_are_left_out(self) -> None:
        row = RESULT.to_json() | {"prompts": {"rewrite_prompts": "Zoë lives in", "generation_prompts": ["Zoë"]}}
        assert CaseResult.from_json(row).prompts == {"generation_prompts": ["Zoë"]}

    @pytest.mark.parametrize("part", ["requested_rewrite", "pre", "post", "edit"])
    def test_a_part_of_another_type_is_named(self, part: str) -> None:
        with pytest.raises(DataError, match=f"{part}: expected an object, found list"):
            CaseResult.from_json(RESULT.to_json() | {part: [1]})

    @pytest.mark.parametrize(
        ("side", "what"),
        [
            ({"rewrite_prompts": [[1.0]]}, "rewrite_prompts"),
            ({"rewrite_prompts": [["1.0", 2.0]]}, "rewrite_prompts"),
            ({"paraphrase_prompts": 5}, "paraphrase_prompts"),
            ({"rewrite_prompts_correct": ["yes"]}, "rewrite_prompts_correct"),
            ({"text": "one"}, "text"),
            ({"ngram_entropy": [1.0]}, "ngram_entropy"),
        ],
    )
    def test_a_side_that_holds_no_measurements_is_named(self, side: dict[str, object], what: str) -> None:
        with pytest.raises(DataError, match=f"post.{what}"):
            CaseResult.from_json(RESULT.to_json() | {"post": side})
        assert edit_row_fault(RESULT.to_json() | {"post": side}).startswith(f"post.{what}")

    def test_a_row_counts_with_both_sides(self) -> None:
        row = RESULT.to_json()
        assert edit_row_fault(row) == ""
        assert edit_row_fault(row | {"post": None}) == "post: missing"
        assert edit_row_fault({"case_id": 1}) == "pre and post: missing"
        assert "time" in edit_row_fault(row | {"time": "long"})

    def test_is_complete_when_measured_on_every_side(self) -> None:
        one_sided = replace(RESULT, after=None)
        assert one_sided.is_complete(["pre"])
        assert not one_sided.is_complete(["pre", "post"])
        assert RESULT.is_complete(["pre", "post"])
        assert (RESULT.measured("pre"), RESULT.measured("post")) == (RESULT.before, RESULT.after)
        assert one_sided.measured("post") is None
