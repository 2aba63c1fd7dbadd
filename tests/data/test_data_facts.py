"""Facts in any of the usual forms become the same cases; bad records are set aside under the record's own names."""

from __future__ import annotations

import copy
import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_records import counterfact_record, write, zsre_record

from romexp.data.counterfact import CounterFact
from romexp.data.facts_file import FactsFile
from romexp.errors import DataError, RecordError, result_or_error
from romexp.facts import Case, EditRequest

FLAT = {"subject": "Rome", "prompt": "{} is the capital of", "target_new": "France", "target_true": "Italy"}
CASE = Case(
    case_id=0,
    request=EditRequest(subject="Rome", prompt="{} is the capital of", target_new="France", target_true="Italy"),
)


def parse(record: Any, index: int = 0) -> Case:
    return FactsFile().parse(index, record)


def flat(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in {**FLAT, **fields}.items() if value is not ...}


@pytest.mark.parametrize(
    "record",
    [
        FLAT,
        flat(prompt="Rome is the capital of"),
        flat(prompt="{subject} is the capital of "),
        flat(target_new=" France", target_true=["Italy", "Italia"]),
        {"Subject": "Rome", "Template": "[X] is the capital of", "New target": "France", "Ground-truth": ["Italy"]},
        {**FLAT, "paraphrases": None, "neighbourhood": [], "comment": "unknown"},
        {"requested_rewrite": FLAT},
        {"requested_rewrite": flat(target_new={"str": "France"}, target_true={"str": "Italy"})},
        {"requested_rewrite": [FLAT], "answer": "multi-hop", "questions": ["multi-hop?"]},
    ],
)
def test_one_fact_in_many_forms(record: dict[str, Any]) -> None:
    assert parse(record) == CASE


def test_counterfact_records_are_read_as_by_their_own_reader() -> None:
    record = counterfact_record(7)
    assert parse(record) == CounterFact().parse(0, record)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("paraphrase", "paraphrase_prompts"),
        ("rephrase_prompt", "paraphrase_prompts"),
        ("neighbourhood", "neighborhood_prompts"),
        ("neighbors", "neighborhood_prompts"),
        ("Neighbourhood prompts", "neighborhood_prompts"),
        ("attribute_prompts", "attribute_prompts"),
        ("generation", "generation_prompts"),
    ],
)
def test_lists_of_prompts_have_several_names_and_may_be_one_text(name: str, field: str) -> None:
    assert getattr(parse(flat(**{name: ["a", "b"]})), field) == ("a", "b")
    assert getattr(parse(flat(**{name: "a | b"})), field) == ("a | b",)  # a text of JSON is literal


def test_question_answering_and_knowedit_and_mquake() -> None:
    zsre = parse(zsre_record(3))
    assert zsre.request.target_true == ""
    assert zsre.request.prompt == "What does {} make?"
    assert zsre.neighborhood_prompts == ("nq question: who plays the sheriff?",)
    assert zsre.neighborhood_targets == ("Walter Sobchak",)
    locality = {"Relation_Specificity": [{"prompt": "Rome has", "ground_truth": [["hills", "the hills"]]}], "None": []}
    knowedit = parse(flat(target_true=..., ground_truth="Italy", rephrase_prompt="Rome, of", locality=locality))
    assert knowedit.request == CASE.request
    assert (knowedit.neighborhood_prompts, knowedit.neighborhood_targets) == (("Rome has",), ("hills",))
    assert knowedit.paraphrase_prompts == ("Rome, of",)
    mquake = {"case_id": 4, "requested_rewrite": [{**FLAT, "question": "What is Rome the capital of?"}]}
    assert parse(mquake).paraphrase_prompts == ("What is Rome the capital of?",)


@pytest.mark.parametrize(
    ("record", "field", "reason"),
    [
        (5, "(record)", "expected an object, not 5"),
        (flat(subject=...), "subject", "missing"),
        (flat(target_new=""), "target_new", "missing"),
        (flat(target_new={"id": "Q1"}), "target_new.str", "missing"),
        (flat(subject=["Rome"]), "subject", "expected a valid string"),
        (flat(prompt="It is the capital of"), "prompt", "expected {} or the subject 'Rome'"),
        (flat(prompt="{} and {}"), "prompt", "expected one {} for the subject, found 2"),
        (flat(target_new="Italy "), "target_new", "expected another answer than target_true"),
        (flat(rephrases=["good", 5]), "rephrases[1]", "expected a valid string, not 5"),
        (flat(locality={"a": ["text"]}), "locality.a[0]", "expected an object with prompt and answer"),
        (flat(loc="who", loc_ans=["a", "b"]), "loc_ans", "expected an answer to each of 1"),
        ({"requested_rewrite": [FLAT, FLAT]}, "requested_rewrite", "one single edit, found 2"),
        ({"requested_rewrite": flat(subject=...)}, "requested_rewrite.subject", "missing"),
        ({"requested_rewrite": flat(target_true={"str": 5.5j})}, "requested_rewrite.target_true.str", "string"),
    ],
)
def test_a_fault_is_named_as_the_record_names_it(record: Any, field: str, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse(record)
    assert caught.value.field == field
    assert reason in caught.value.reason


def test_ids(tmp_path) -> None:
    ids = [2.0, "5", "5.0", None, "Q42", "Q42", 7]
    file = write(tmp_path / "facts.json", [flat(id=number) for number in ids])
    loaded = FactsFile(path=file).load()
    assert [case.case_id for case in loaded.items] == [2, 5, 3, 4, 7]
    assert [(r.index, r.reason) for r in loaded.rejected] == [
        (2, "id 5 is already that of record 1"),
        (5, "id 'Q42' is already that of record 4"),
    ]
    assert [case.case_id for case in FactsFile(path=file, case_ids=[7, 4]).load().items] == [4, 7]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = [*FLAT, "id", "requested_rewrite", "paraphrases", "neighbourhood", "locality", "loc", "loc_ans", "ground_truth"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_whatever_stands_in_a_record_it_is_a_case_or_set_aside(spoilt: dict[str, Any]) -> None:
    record = copy.deepcopy(FLAT) | spoilt
    FactsFile().record_key(0, record)
    case = result_or_error(partial(parse, record))
    if isinstance(case, RecordError):
        assert case.field
        assert "\n" not in str(case)
    else:
        assert case.request.prompt.count("{}") == 1
        assert not case.neighborhood_targets or len(case.neighborhood_targets) == len(case.neighborhood_prompts)


def test_only_as_much_is_read_as_the_selection_needs(tmp_path) -> None:
    file = tmp_path / "facts.jsonl"
    good = "".join(json.dumps(flat(id=i)) + "\n" for i in range(5))
    file.write_bytes((good + " " * (1 << 20) + "\n").encode() + b"\xff\n")
    assert len(FactsFile(path=file, limit=5).load().items) == 5
    with pytest.raises(DataError, match="not UTF-8"):
        FactsFile(path=file).load()
