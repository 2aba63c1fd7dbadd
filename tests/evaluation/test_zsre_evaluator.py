"""zsRE's accuracies against the reference's procedure, one prompt and token at a time."""

from __future__ import annotations

import json

import pytest
from naive_measures import correct
from test_counterfact_evaluator import delta_for
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from romexp.errors import RecordError
from romexp.evaluation.zsre import ZsreEvaluator, adds_word_marks, expected_tokens, questions_of
from romexp.facts import Case, EditRequest
from romexp.lm.deltas import applied
from romexp.lm.model import LanguageModel
from romexp.lm.scoring import Query, score

KEYS = ["rewrite_prompts_correct", "paraphrase_prompts_correct", "neighborhood_prompts_correct"]
ANSWERS = ("Apple", "the north of Paris", "Äksi", "Dąbrowa Górnicza", "音楽")


def make_case(case_id: int, answer: str) -> Case:
    request = EditRequest(
        subject="Steve Jobs", prompt="What company did {} found?", target_new=answer, target_true="<|endoftext|>"
    )
    return Case(
        case_id=case_id,
        request=request,
        paraphrase_prompts=("Which is the company of Steve Jobs?",),
        neighborhood_prompts=("nq question: who plays the violin?",),
        neighborhood_targets=("Anna and Bob",),
    )


CASES = [make_case(i, answer) for i, answer in enumerate(ANSWERS)]


def naive(lm: LanguageModel, case: Case) -> dict[str, list[bool]]:
    answer = case.request.target_new
    return {
        "rewrite_prompts_correct": correct(lm, "What company did Steve Jobs found?", answer),
        "paraphrase_prompts_correct": correct(lm, "Which is the company of Steve Jobs?", answer),
        "neighborhood_prompts_correct": correct(lm, "nq question: who plays the violin?", "Anna and Bob"),
    }


def greedy_answer(lm: LanguageModel, prompt: str, tokens: int) -> str:
    """What the model itself would say, as a target (it must begin with a space to be one)."""
    ids = lm.tokenizer(prompt + " ")["input_ids"]
    for _ in range(tokens):
        query = Query(prompt=lm.tokenizer.decode(ids), targets=("x",))
        ids.append(score(lm, [query])[0][0].predictions[0])
    return lm.tokenizer.decode(ids)[len(prompt) + 1 :]


@pytest.mark.parametrize("name", ["tiny_gpt2", "tiny_llama_bos"])
def test_rows_equal_the_reference_procedure(name: str, request: pytest.FixtureRequest) -> None:
    lm = request.getfixturevalue(name)
    deltas = [delta_for(lm, seed) for seed in range(len(CASES))]
    rows = ZsreEvaluator()(lm, CASES + CASES, deltas=[None] * len(CASES) + deltas, seed=0)
    assert [list(row) for row in rows] == [KEYS] * len(rows)
    assert rows[: len(CASES)] == [naive(lm, case) for case in CASES]
    for row, case, delta in zip(rows[len(CASES) :], CASES, deltas, strict=True):
        with applied(lm, delta):
            assert row == naive(lm, case)
    assert json.loads(json.dumps(rows)) == rows


def test_what_the_model_says_is_right(tiny_gpt2: LanguageModel) -> None:
    """A control: with answers that the model gives, booleans are true, and one foreign token makes one false."""
    ids = tiny_gpt2.tokenizer(" Paris")["input_ids"]
    assert len(ids) > 0
    query = Query(prompt="What company did Steve Jobs found?", targets=("Paris is",))
    ((scored,),) = score(tiny_gpt2, [query])
    said = [p == t for p, t in zip(scored.predictions, scored.token_ids, strict=True)]
    (row,) = ZsreEvaluator()(tiny_gpt2, [make_case(0, "Paris is")], deltas=[None], seed=0)
    assert row["rewrite_prompts_correct"] == said


def test_the_scored_context_is_the_decoded_one(tiny_gpt2: LanguageModel) -> None:
    """After a part of a character the reference goes on from a replacement mark, not from the true bytes."""
    tokenizer = tiny_gpt2.tokenizer
    ids = tokenizer(" 音楽")["input_ids"]
    again = tokenizer(tokenizer.decode(ids[:2]))["input_ids"]
    assert again != ids[:2]  # otherwise the test above says nothing about it


def test_a_part_of_a_character_is_never_right(tiny_gpt2: LanguageModel) -> None:
    tokenizer = tiny_gpt2.tokenizer
    ids = tokenizer(" 音")["input_ids"]
    expected = expected_tokens(tokenizer, ids)
    parts = [i for i, token in enumerate(ids) if "\ufffd" in tokenizer.decode([token])]
    assert parts
    assert all(expected[i] != ids[i] for i in parts)
    whole = tokenizer(" Paris is located")["input_ids"]
    assert expected_tokens(tokenizer, whole) == whole


def test_batching_does_not_matter(tiny_gpt2: LanguageModel) -> None:
    one = ZsreEvaluator()(tiny_gpt2, CASES, deltas=[None] * len(CASES), seed=0)
    small = ZsreEvaluator(max_batch_tokens=8)(tiny_gpt2, CASES[::-1], deltas=[None] * len(CASES), seed=5)
    assert small[::-1] == one


def test_no_neighbours_no_booleans(tiny_gpt2: LanguageModel) -> None:
    case = Case(case_id=0, request=CASES[0].request)
    (row,) = ZsreEvaluator()(tiny_gpt2, [case], deltas=[None], seed=0)
    assert row["paraphrase_prompts_correct"] == row["neighborhood_prompts_correct"] == []
    assert row["rewrite_prompts_correct"]
    assert ZsreEvaluator()(tiny_gpt2, [], deltas=[], seed=0) == []


def test_neighbours_without_answers_are_refused() -> None:
    case = Case(case_id=11, request=CASES[0].request, neighborhood_prompts=("Bob plays",))
    with pytest.raises(RecordError, match=r"record 11, field neighborhood_targets: 0 for 1"):
        questions_of(case)


def test_tokenizers_with_word_marks_are_known(tiny_gpt2: LanguageModel) -> None:
    inner = Tokenizer(models.BPE(vocab={"▁": 0, "a": 1, "b": 2, "▁a": 3}, merges=[("▁", "a")]))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    assert adds_word_marks(tokenizer)
    assert not adds_word_marks(tiny_gpt2.tokenizer)
    # Why it matters: "▁ab" ends in the piece "b", which alone would be tokenized "▁", "b".
    ids = tokenizer(" ab")["input_ids"]
    assert ids == [3, 2]
    assert expected_tokens(tokenizer, ids) == [3, 0]
