"""Generated texts, their seeds, and their scores with and without references."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from test_counterfact_evaluator import delta_for, make_case

from romexp.errors import RecordError
from romexp.evaluation.counterfact import CounterFactEvaluator
from romexp.evaluation.generation import References, essence_scores, generate_texts, score_texts
from romexp.evaluation.text_metrics import ngram_entropy
from romexp.facts import Case, EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler
from romexp.lm.scoring import text_nlls
from romexp.lm.weight_delta import WeightDelta

EVALUATOR = CounterFactEvaluator(sampler=Sampler(max_length=16))


@dataclass(frozen=True)
class Article:
    name: str
    text: str


ARTICLES = (Article("Bob", "Bob plays the piano"), Article("Anna", "Anna plays the violin in Paris"))


def references(articles: Mapping[tuple[str, str], tuple[Article, ...]]) -> References:
    vectorizer = TfidfVectorizer().fit(["Bob plays the piano", "Anna plays the violin in Paris", "a bank"])
    return References(snippets=articles, vectorizer=vectorizer)


def case_with(case_id: int, *, target_id: str = "Q1", prompts: tuple[str, ...] = ("Anna plays", "Anna plays")) -> Case:
    request = EditRequest(
        subject="Anna",
        prompt="{} plays the",
        target_new="piano",
        target_true="violin",
        relation_id="P1",
        target_new_id=target_id,
    )
    return Case(case_id=case_id, request=request, generation_prompts=prompts)


def test_texts_begin_with_their_prompts_and_are_scored(tiny_gpt2: LanguageModel) -> None:
    refs = references({("P1", "Q1"): ARTICLES})
    (row,) = EVALUATOR(tiny_gpt2, [case_with(4)], deltas=[None], seed=0, references=refs)
    assert len(row["text"]) == 2
    assert all(text.startswith("Anna plays") and len(text) > len("Anna plays") for text in row["text"])
    assert row["text"][0] != row["text"][1]  # one prompt twice, a seed each
    assert row["ngram_entropy"] == pytest.approx(ngram_entropy(row["text"]))
    assert 0 < row["reference_score"] <= 1  # both have "Anna plays"
    assert "notes" not in row


def test_a_text_depends_on_seed_and_case_alone(tiny_gpt2: LanguageModel) -> None:
    cases = [case_with(4), case_with(9, prompts=("Bob", "The phone", "It is said that"))]
    alone = [EVALUATOR(tiny_gpt2, [case], deltas=[None], seed=0)[0]["text"] for case in cases]
    together = EVALUATOR(tiny_gpt2, cases[::-1], deltas=[None, None], seed=0)[::-1]
    assert [row["text"] for row in together] == alone
    assert EVALUATOR(tiny_gpt2, cases[:1], deltas=[None], seed=1)[0]["text"] != alone[0]
    assert EVALUATOR(tiny_gpt2, [case_with(5)], deltas=[None], seed=0)[0]["text"] != alone[0]


def test_an_edited_row_goes_through_its_own_delta(tiny_gpt2: LanguageModel) -> None:
    case = case_with(4)
    deltas = [None, WeightDelta(), delta_for(tiny_gpt2, 1)]
    same, empty, edited = EVALUATOR(tiny_gpt2, [case] * 3, deltas=deltas, seed=0)
    assert same["text"] == empty["text"]  # before and after an edit that does nothing: the same draws
    assert edited["text"] != same["text"]


def test_essence_is_taken_on_texts_about_the_subject(tiny_gpt2: LanguageModel) -> None:
    refs = references({("P1", "Q1"): (*ARTICLES, Article("Anna", "It is said."))})
    delta = delta_for(tiny_gpt2, 1)
    before, after = EVALUATOR(tiny_gpt2, [case_with(4)] * 2, deltas=[None, delta], seed=0, references=refs)
    (nlls,) = text_nlls(tiny_gpt2, ["Anna plays the violin in Paris It is said."])
    assert before["essence_score"] == pytest.approx(math.exp(sum(nlls) / (len(nlls) + 1)), rel=1e-5)
    assert after["essence_score"] != pytest.approx(before["essence_score"], rel=1e-3)


def test_essence_is_cut_to_a_hundred_tokens(tiny_gpt2: LanguageModel) -> None:
    long = " ".join(["Anna plays the violin in Paris."] * 40)
    refs = references({("P1", "Q1"): (Article("Anna", long),)})
    (row,) = EVALUATOR(tiny_gpt2, [case_with(4)], deltas=[None], seed=0, references=refs)
    (nlls,) = text_nlls(tiny_gpt2, [long], max_tokens=100)
    assert len(nlls) == 99
    assert row["essence_score"] == pytest.approx(math.exp(sum(nlls) / 100), rel=1e-5)


def test_essence_is_null_without_such_a_text_or_when_switched_off(tiny_gpt2: LanguageModel) -> None:
    without = references({("P1", "Q1"): ARTICLES[:1]})
    (row,) = EVALUATOR(tiny_gpt2, [case_with(4)], deltas=[None], seed=0, references=without)
    assert row["essence_score"] is None
    assert "notes" not in row  # the usual case, nothing to report
    off = CounterFactEvaluator(sampler=Sampler(max_length=16), essence=False)
    refs = references({("P1", "Q1"): ARTICLES})
    (row,) = off(tiny_gpt2, [case_with(4)], deltas=[None], seed=0, references=refs)
    assert row["essence_score"] is None
    assert row["reference_score"] is not None


def test_a_case_without_snippets_loses_its_score_and_no_other_does(tiny_gpt2: LanguageModel) -> None:
    refs = references({("P1", "Q1"): ARTICLES})
    cases = [case_with(4), case_with(5, target_id="Q404"), case_with(6, prompts=())]
    good, bare, silent = EVALUATOR(tiny_gpt2, cases, deltas=[None] * 3, seed=0, references=refs)
    assert good["reference_score"] is not None
    assert "notes" not in good
    assert bare["reference_score"] is None
    assert bare["ngram_entropy"] is not None
    assert bare["notes"] == ["no snippets for relation and target ('P1', 'Q404'): RS is null"]
    assert silent["text"] == []
    assert silent["ngram_entropy"] is silent["reference_score"] is None
    assert silent["notes"] == ["no generation prompts: GE and RS are null"]


def test_without_references_only_the_entropy_is_taken(tiny_gpt2: LanguageModel) -> None:
    (row,) = EVALUATOR(tiny_gpt2, [case_with(4)], deltas=[None], seed=0)
    assert row["ngram_entropy"] is not None
    assert row["reference_score"] is row["essence_score"] is None
    assert row["notes"] == ["no reference texts were given: RS is null"]


def test_reference_is_all_snippets_of_the_new_target_joined() -> None:
    refs = references({("P1", "Q1"): ARTICLES, ("P1", "Q2"): (Article("x", "a bank"),)})
    joined = "Bob plays the piano Anna plays the violin in Paris"
    assert score_texts([joined], case_with(1).request, refs).reference_score == pytest.approx(1.0)
    assert score_texts([joined], case_with(1, target_id="Q2").request, refs).reference_score == 0.0


def test_prompts_of_probabilities_are_unaffected_by_generation(tiny_gpt2: LanguageModel) -> None:
    case = make_case(2, "Anna", "piano", "violin", generation_prompts=("Anna plays",))
    (with_texts,) = EVALUATOR(tiny_gpt2, [case], deltas=[None], seed=0)
    (without,) = CounterFactEvaluator(generation="off")(tiny_gpt2, [case], deltas=[None], seed=0)
    assert {key: with_texts[key] for key in without} == without


def test_an_error_stands_in_the_place_of_a_case_whose_generation_prompt_is_too_long(tiny_gpt2: LanguageModel) -> None:
    """Though its other prompts could be scored. The cases around it get the texts that they get without it."""
    refs = references({("P1", "Q1"): ARTICLES})
    bad = case_with(9, prompts=("Anna plays", "Anna " * 200 + "plays"))
    cases, delta = [case_with(4), bad, case_with(5)], delta_for(tiny_gpt2, 1)
    first, error, second = EVALUATOR(tiny_gpt2, cases, deltas=[delta, None, None], seed=0, references=refs)
    assert isinstance(error, RecordError)
    assert error.field == "prompt"
    assert "sees 128" in error.reason
    expected = EVALUATOR(tiny_gpt2, [cases[0], cases[2]], deltas=[delta, None], seed=0, references=refs)
    for row, alone in zip((first, second), expected, strict=True):
        assert row["text"] == alone["text"]
        assert row["reference_score"] == alone["reference_score"]
        assert row["essence_score"] == pytest.approx(alone["essence_score"], rel=1e-5)
    assert first["essence_score"] != pytest.approx(second["essence_score"], rel=1e-3)  # each through its own edit


def test_texts_and_essence_of_cases_that_come_with_their_edits(tiny_gpt2: LanguageModel) -> None:
    """Each pair of a case and an edit is by itself, also where the case is the same."""
    refs = references({("P1", "Q1"): ARTICLES})
    case, delta = case_with(4), delta_for(tiny_gpt2, 1)
    pairs = [(case, None), (case_with(6, target_id="Q404"), None), (case, delta), (case_with(7, prompts=()), delta)]
    texts = generate_texts(tiny_gpt2, pairs, sampler=EVALUATOR.sampler, seed=3)
    essences = essence_scores(tiny_gpt2, pairs, references=refs)
    assert [len(own) for own in texts] == [2, 2, 2, 0]
    assert texts[0] != texts[2]
    assert essences[1] is None
    for i in range(4):
        assert generate_texts(tiny_gpt2, pairs[i : i + 1], sampler=EVALUATOR.sampler, seed=3) == texts[i : i + 1]
        (alone,) = essence_scores(tiny_gpt2, pairs[i : i + 1], references=refs)
        assert alone == (None if essences[i] is None else pytest.approx(essences[i], rel=1e-5))
    assert essences[2] == pytest.approx(essences[3], rel=1e-5)
    assert essences[0] != pytest.approx(essences[2], rel=1e-3)
