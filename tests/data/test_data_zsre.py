"""zsRE questions become cases; what ROME cannot edit is set aside."""

from __future__ import annotations

import re

import pytest
from raw_records import spoil, write, zsre_record

from romexp.data.zsre import ZsRE
from romexp.facts import Case, EditRequest, fill


@pytest.fixture
def records():
    return [zsre_record(number) for number in range(4)]


def test_fields(tmp_path, records):
    loaded = ZsRE(path=write(tmp_path / "zsre.json", records)).load()
    assert loaded.items[2] == Case(
        case_id=2,
        request=EditRequest(
            subject="UniFirst 2 Ltd",
            prompt="What does {} make?",
            target_new="uniform",
            target_true="<|endoftext|>",
        ),
        paraphrase_prompts=("What is the product of UniFirst 2 Ltd?",),
        neighborhood_prompts=("nq question: who plays the sheriff?",),
        neighborhood_targets=("Walter Sobchak",),
    )


BAD = [
    ("src", "What does it make?", "src", "once in .* found 0"),
    ("src", "Does UniFirst 1 Ltd own UniFirst 1 Ltd?", "src", "once in .* found 2"),
    ("src", "What does (UniFirst 1 Ltd) make?", "src", "expected a space before"),
    ("src", "What {} does UniFirst 1 Ltd make?", "src", "braces"),
    ("src", 5, "src", "expected a valid string"),
    ("subject", "", "subject", "expected some text"),
    ("answers", [], "answers", "at least 1 item"),
    ("answers", [""], "answers[0]", "white space"),
    ("answers", "uniform", "answers", "expected a valid list"),
    ("rephrase", "", "rephrase", "white space"),
    ("loc", "who plays the sheriff", "loc", "expected text with 'nq question: '"),
    ("loc_ans", "", "loc_ans", "white space"),
    ("loc", ..., "loc", "missing"),
]


@pytest.mark.parametrize(("spoilt", "value", "field", "reason"), BAD)
def test_a_bad_record_is_set_aside_and_the_others_keep_their_ids(tmp_path, records, spoilt, value, field, reason):
    spoil(records[1], spoilt, value)
    file = write(tmp_path / "zsre.json", records)
    loaded = ZsRE(path=file).load()
    assert [case.case_id for case in loaded.items] == [0, 2, 3]
    (rejected,) = loaded.rejected
    assert (rejected.file, rejected.index, rejected.field) == (str(file), 1, field)
    assert re.search(reason, rejected.reason), rejected.reason


def test_a_subject_at_the_start_is_good(tmp_path, records):
    spoil(records[0], "src", "UniFirst 0 Ltd makes what?")
    assert ZsRE(path=write(tmp_path / "zsre.json", records)).load().items[0].request.prompt == "{} makes what?"


def test_the_marker_may_be_waived(tmp_path, records):
    spoil(records[0], "loc", "who plays the sheriff")
    loaded = ZsRE(path=write(tmp_path / "zsre.json", records), loc_marker="").load()
    assert loaded.items[0].neighborhood_prompts == ("who plays the sheriff?",)


def test_limit_and_ids_are_honoured(tmp_path, records):
    file = write(tmp_path / "zsre.json", records)
    assert [case.case_id for case in ZsRE(path=file, limit=2, offset=1).load().items] == [1, 2]
    assert [case.case_id for case in ZsRE(path=file, case_ids=[3]).load().items] == [3]


def test_reference_material_loads_without_loss(shared):
    loaded = ZsRE(path=shared / "data" / "zsre_train_1000.json").load()
    assert (len(loaded.items), loaded.rejected) == (1000, ())
    assert all(case.request.subject in fill(case.request.prompt, case.request.subject) for case in loaded.items)
    assert all(case.request.subject not in case.request.prompt for case in loaded.items)


@pytest.mark.parametrize(
    ("question", "template"),
    [
        ("Is Romeo from Rome or not?", "Is Romeo from {} or not?"),
        ("Is Rome-based Anna from Rome?", "Is Rome-based Anna from {}?"),
        ("What is Rome's river?", "What is {}'s river?"),
        ("Who are the Romes of Georgia?", "Who are the {}s of Georgia?"),  # it stands nowhere else
    ],
)
def test_a_subject_inside_another_word_does_not_count_where_it_stands_alone(tmp_path, records, question, template):
    records[1] |= {"subject": "Rome", "src": question}
    loaded = ZsRE(path=write(tmp_path / "zsre.json", records)).load()
    assert not loaded.rejected
    assert loaded.items[1].request.prompt == template
    assert loaded.items[1].request.text == question


def test_white_space_after_an_answer_is_left_out(tmp_path, records):
    records[1] |= {"answers": ["uniform \n"], "loc_ans": "Walter Sobchak "}
    loaded = ZsRE(path=write(tmp_path / "zsre.json", records)).load()
    assert loaded.items[1].request.target_new == "uniform"
    assert loaded.items[1].neighborhood_targets == ("Walter Sobchak",)
