"""zsRE's accuracies against the reference's procedure, one prompt and token at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from naive_measures import correct, next_token_logits
from test_counterfact_evaluator import delta_for
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from romexp.errors import RecordError
from romexp.evaluation import zsre
from romexp.evaluation.zsre import ZsreEvaluator, adds_word_marks, expected_tokens, questions_of
from romexp.facts import Case, EditRequest
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import TargetScore

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


def say(lm: LanguageModel, prompt: str) -> str | None:
    """An answer whose first token the model itself predicts after `prompt`; None if that token begins no word."""
    ids = lm.tokenizer(prompt)["input_ids"]
    said = lm.tokenizer.decode([int(next_token_logits(lm, ids)[-1].argmax())])
    return f"{said[1:]} Bob" if said[:1] == " " and said[1:].isalpha() else None


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
    """A control: random answers are nearly all wrong, these begin right and go on wrong."""
    prompts = [
        f"{a} and {b} {c}" for a in ("Anna", "Bob", "Zoë") for b in ("Paris", "Apple") for c in ("is", "by", "in")
    ]
    answers = {prompt: answer for prompt in prompts if (answer := say(tiny_gpt2, prompt))}
    assert len(answers) >= 3
    cases = [
        Case(
            case_id=i,
            request=EditRequest(subject="x", prompt="{}", target_new="y", target_true="z"),
            neighborhood_prompts=(prompt,),
            neighborhood_targets=(answer,),
        )
        for i, (prompt, answer) in enumerate(answers.items())
    ]
    rows = ZsreEvaluator()(tiny_gpt2, cases, deltas=[None] * len(cases), seed=0)
    for row, (prompt, answer) in zip(rows, answers.items(), strict=True):
        assert row["neighborhood_prompts_correct"] == correct(tiny_gpt2, prompt, answer)
        assert row["neighborhood_prompts_correct"][0] is True


def stand_in_for_score(lm: Any, queries: Sequence[Query], **_: Any) -> list[tuple[TargetScore, ...]]:
    """A model that knows every answer, and says the replacement mark again after one."""
    scores = []
    for query in queries:
        ids = tuple(lm.tokenizer(f" {query.targets[0]}")["input_ids"])
        mark = lm.tokenizer("\ufffd")["input_ids"][:1]
        said = (*mark, *ids[1:]) if query.prompt.endswith("\ufffd") else ids
        scores.append((TargetScore(nll=0.0, token_ids=ids, token_nlls=(0.0,) * len(ids), predictions=said),))
    return scores


def test_parts_of_a_character_are_treated_as_in_the_reference(
    tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expected there is the replacement mark's first token, and the context goes on from a replacement mark."""
    monkeypatch.setattr(zsre, "score", stand_in_for_score)
    tokenizer = tiny_gpt2.tokenizer
    ids = tokenizer(" 音")["input_ids"]
    assert [tokenizer.decode(ids[:i]) for i in range(1, 5)] == [" ", " \ufffd", " \ufffd", " 音"]
    (row,) = ZsreEvaluator()(tiny_gpt2, [make_case(0, "音")], deltas=[None], seed=0)
    # The space is right. The first byte is not what the mark begins with; after a mark the model says the mark.
    assert row["rewrite_prompts_correct"] == [True, False, True, True]
    assert row["neighborhood_prompts_correct"] == [True] * len(tokenizer(" Anna and Bob")["input_ids"])


def test_pieces_of_words_can_be_right_with_word_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zsre, "score", stand_in_for_score)
    lm = SimpleNamespace(tokenizer=word_mark_tokenizer())
    case = Case(case_id=0, request=replace(CASES[0].request, target_new="ab"))
    (row,) = ZsreEvaluator()(lm, [case], deltas=[None], seed=0)  # type: ignore[arg-type]
    assert row["rewrite_prompts_correct"] == [True, True]


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


def test_errors_stand_in_the_place_of_cases_that_cannot_be_measured(tiny_gpt2: LanguageModel) -> None:
    """Neighbours without answers, and a question that is too long. The others are measured as without them."""
    unanswered = Case(case_id=11, request=CASES[0].request, neighborhood_prompts=("Bob plays",))
    with pytest.raises(RecordError, match="field neighborhood_targets: 0 for 1"):
        questions_of(unanswered)
    long = replace(CASES[0], case_id=12, paraphrase_prompts=("Anna " * 130 + "plays",))
    cases = [CASES[0], unanswered, CASES[1], long, CASES[2]]
    edited = delta_for(tiny_gpt2, 1)
    deltas = [None, edited, edited, None, delta_for(tiny_gpt2, 2)]
    rows = ZsreEvaluator()(tiny_gpt2, cases, deltas=deltas, seed=0)
    errors = [rows[1], rows[3]]
    assert [isinstance(error, RecordError) and error.field for error in errors] == ["neighborhood_targets", "prompt"]
    good = [0, 2, 4]
    expected = ZsreEvaluator()(tiny_gpt2, [cases[i] for i in good], deltas=[deltas[i] for i in good], seed=0)
    assert [rows[i] for i in good] == expected


def word_mark_tokenizer() -> PreTrainedTokenizerFast:
    """As SentencePiece's: "ab" is the tokens "▁a", "b", and so is " ab"."""
    inner = Tokenizer(models.BPE(vocab={"▁": 0, "a": 1, "b": 2, "▁a": 3, "\ufffd": 4}, merges=[("▁", "a")]))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_tokenizers_with_word_marks_are_known(tiny_gpt2: LanguageModel) -> None:
    tokenizer = word_mark_tokenizer()
    assert adds_word_marks(tokenizer)
    assert not adds_word_marks(tiny_gpt2.tokenizer)
    # Why it matters: "▁ab" ends in the piece "b", which alone would be tokenized "▁", "b".
    ids = tokenizer(" ab")["input_ids"]
    assert ids == [3, 2]
    assert expected_tokens(tokenizer, ids) == [3, 0]
