"""CounterFact's measurements against a naive reference, and what a bad case does."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from naive_measures import nll

from romexp.errors import ConfigError, RecordError
from romexp.evaluation import counterfact, generation
from romexp.evaluation.counterfact import CounterFactEvaluator
from romexp.evaluation.zsre import ZsreEvaluator
from romexp.facts import NO_TRUE_TARGET, Case, EditRequest
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.sampling import Sampler
from romexp.lm.scoring import TargetScore
from romexp.lm.tokens import bare_ids
from romexp.lm.weight_delta import LowRank, WeightDelta

KINDS = ("rewrite_prompts", "paraphrase_prompts", "neighborhood_prompts", "attribute_prompts")
OFF = CounterFactEvaluator(generation="off")


def make_case(case_id: int, subject: str, new: str, true: str, **more: Any) -> Case:
    request = EditRequest(subject=subject, prompt="{} plays the", target_new=new, target_true=true)
    return Case(
        case_id=case_id,
        request=request,
        paraphrase_prompts=(f"It is said. {subject} plays", f"The instrument of {subject} is the"),
        neighborhood_prompts=("Zoë plays the", "Bob is located in", "Anna plays the"),
        attribute_prompts=("Édouard plays the",),
        **more,
    )


CASES = [
    make_case(3, "Anna", "piano", "violin"),
    make_case(5, "Steve Jobs", "Space Needle", "phone"),  # targets of different lengths
]


def delta_for(lm: LanguageModel, seed: int) -> WeightDelta:
    name = f"{lm.architecture.mlp_out_name(1)}.weight"
    layer = lm.parameter(name)
    width_out = lm.hidden_size
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(layer.numel() // width_out, 1, generator=generator)
    right = torch.randn(width_out, 1, generator=generator)
    return WeightDelta(terms={name: LowRank(left=left, right=right)})


def naive(lm: LanguageModel, case: Case) -> dict[str, list[list[float]]]:
    request = case.request
    prompts = {
        "rewrite_prompts": [f"{request.subject} plays the"],
        "paraphrase_prompts": case.paraphrase_prompts,
        "neighborhood_prompts": case.neighborhood_prompts,
        "attribute_prompts": case.attribute_prompts,
    }
    return {
        kind: [[nll(lm, prompt, request.target_new), nll(lm, prompt, request.target_true)] for prompt in group]
        for kind, group in prompts.items()
    }


def assert_close(row: dict[str, Any], expected: dict[str, list[list[float]]], tolerance: float) -> None:
    for kind in KINDS:
        torch.testing.assert_close(
            torch.tensor(row[kind]), torch.tensor(expected[kind]), atol=tolerance, rtol=tolerance
        )


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rows_equal_one_forward_a_prompt(family: str, request: pytest.FixtureRequest) -> None:
    lm = request.getfixturevalue("tiny_gpt2" if family == "gpt2" else "tiny_llama_bos")
    deltas = [delta_for(lm, 1), delta_for(lm, 2)]
    rows = OFF(lm, CASES + CASES, deltas=[None, None, *deltas], seed=0)
    assert [set(row) for row in rows] == [set(KINDS)] * 4
    before = [naive(lm, case) for case in CASES]
    for row, expected in zip(rows[:2], before, strict=True):
        assert_close(row, expected, 1e-4)
    for row, case, delta, unedited in zip(rows[2:], CASES, deltas, before, strict=True):
        with applied(lm, delta):
            assert_close(row, naive(lm, case), 1e-3)
        assert abs(row["rewrite_prompts"][0][0] - unedited["rewrite_prompts"][0][0]) > 0.01  # the edit shows


def test_batching_and_order_do_not_matter(tiny_gpt2: LanguageModel) -> None:
    together = OFF(tiny_gpt2, CASES, deltas=[None, None], seed=0)
    small = CounterFactEvaluator(generation="off", max_batch_tokens=16)
    reverse = small(tiny_gpt2, CASES[::-1], deltas=[None, None], seed=0)[::-1]
    for a, b in zip(together, reverse, strict=True):
        assert_close(a, b, 1e-5)


def test_rows_are_strict_json(tiny_gpt2: LanguageModel) -> None:
    rows = OFF(tiny_gpt2, CASES, deltas=[None, None], seed=0)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_attributes_can_be_left_out(tiny_gpt2: LanguageModel) -> None:
    evaluator = CounterFactEvaluator(generation="off", attributes=False)
    (row,) = evaluator(tiny_gpt2, CASES[:1], deltas=[None], seed=0)
    assert row["attribute_prompts"] == []
    assert len(row["neighborhood_prompts"]) == 3


def test_an_nll_that_is_not_finite_is_null_with_a_note(
    tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(
        lm: LanguageModel, queries: Sequence[Query], *, deltas: Sequence[WeightDelta | None], **_: Any
    ) -> list[tuple[TargetScore, ...]]:
        def scored(query: Query, delta: WeightDelta | None) -> TargetScore:
            bad = delta is not None and query.prompt.startswith("Zoë")
            return TargetScore(nll=math.nan if bad else 1.5, token_ids=(1,), token_nlls=(1.5,), predictions=(1,))

        return [(scored(query, delta),) * 2 for query, delta in zip(queries, deltas, strict=True)]

    monkeypatch.setattr(counterfact, "score", diverged)
    rows = OFF(tiny_gpt2, CASES[:1] * 2, deltas=[None, WeightDelta()], seed=0)
    assert "notes" not in rows[0]
    assert rows[1]["neighborhood_prompts"] == [[None, None], [1.5, 1.5], [1.5, 1.5]]
    assert rows[1]["notes"] == ["neighborhood_prompts: NLLs that are not finite are null"]


def test_an_edit_that_diverged_costs_no_other_case_its_numbers(tiny_gpt2: LanguageModel) -> None:
    """With the real scoring: its own NLLs are null, the rows beside it are what they are without it."""
    name = f"{tiny_gpt2.architecture.mlp_out_name(1)}.weight"
    low = LowRank(left=torch.full((64, 1), torch.inf), right=torch.ones(32, 1))
    good = delta_for(tiny_gpt2, 1)
    deltas = [None, WeightDelta(terms={name: low}), good]
    first, diverged, last = OFF(tiny_gpt2, [CASES[0]] * 3, deltas=deltas, seed=0)
    assert diverged["rewrite_prompts"] == [[None, None]]
    assert [note.partition(":")[0] for note in diverged["notes"]] == list(KINDS)
    for row, expected in zip((first, last), OFF(tiny_gpt2, [CASES[0]] * 2, deltas=[None, good], seed=0), strict=True):
        assert "notes" not in row
        assert_close(row, expected, 1e-5)


def test_an_error_stands_in_the_place_of_a_case_that_cannot_be_measured(tiny_gpt2: LanguageModel) -> None:
    """The others are measured as without it, each on its own edited model, with texts and without."""
    bad = make_case(9, "Anna " * 130, "piano", "violin", generation_prompts=("Anna plays",))
    talking = [replace(case, generation_prompts=("Anna plays",)) for case in CASES]
    deltas = [None, delta_for(tiny_gpt2, 1)]
    for evaluator in (OFF, CounterFactEvaluator(sampler=Sampler(max_length=8))):
        first, error, second = evaluator(
            tiny_gpt2, [talking[0], bad, talking[1]], deltas=[deltas[0], delta_for(tiny_gpt2, 2), deltas[1]], seed=0
        )
        assert isinstance(error, RecordError)
        assert error.field == "prompt"
        assert "sees 128 at once" in error.reason
        expected = evaluator(tiny_gpt2, talking, deltas=deltas, seed=0)
        for row, alone in zip((first, second), expected, strict=True):
            assert_close(row, alone, 1e-5)
            assert row.get("text") == alone.get("text")
        assert ("text" in first) == evaluator.generates


def test_one_delta_a_case_is_required(tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(ValueError, match="zip"):
        OFF(tiny_gpt2, CASES, deltas=[None], seed=0)


def test_zsre_records_are_refused(tiny_gpt2: LanguageModel) -> None:
    request = replace(CASES[0].request, target_true=NO_TRUE_TARGET)
    case = Case(case_id=7, request=request, neighborhood_prompts=("who?",), neighborhood_targets=("Bob",))
    with pytest.raises(ConfigError, match=r"case 7.*evaluator=zsre"):
        OFF(tiny_gpt2, [case], deltas=[None], seed=0)


def test_without_an_old_answer_accuracies_are_measured_as_on_zsre(tiny_gpt2: LanguageModel) -> None:
    request = replace(CASES[0].request, target_true="")
    own = {"neighborhood_prompts": ("Anna is",), "neighborhood_targets": ("Bob",)}
    cases = [replace(CASES[0], case_id=1, request=request), replace(CASES[0], case_id=2, request=request, **own)]
    plain, with_answers, usual = OFF(tiny_gpt2, [*cases, CASES[0]], deltas=[None] * 3, seed=0)
    assert set(plain) == {"rewrite_prompts_correct", "paraphrase_prompts_correct"}
    (expected,) = ZsreEvaluator()(tiny_gpt2, cases[1:], deltas=[None], seed=0)
    assert with_answers == expected
    assert usual == OFF(tiny_gpt2, CASES[:1], deltas=[None], seed=0)[0]


def test_neighbours_with_answers_of_their_own_are_judged_by_these(tiny_gpt2: LanguageModel) -> None:
    case = replace(CASES[0], neighborhood_prompts=("Anna is",), neighborhood_targets=("Bob",))
    (row,) = OFF(tiny_gpt2, [case], deltas=[None], seed=0)
    assert len(row["neighborhood_prompts_correct"]) == len(bare_ids(tiny_gpt2.tokenizer, " Bob"))
    assert (len(row["rewrite_prompts"]), row["neighborhood_prompts"]) == (1, [])


@pytest.mark.parametrize(
    ("given", "expected"), [("on", "on"), ("off", "off"), (True, "on"), (False, "off"), ("OFF", "off"), ("true", "on")]
)
def test_generation_is_one_setting_however_it_is_spelt(given: str | bool, expected: str) -> None:
    evaluator = CounterFactEvaluator(generation=given)
    assert evaluator == CounterFactEvaluator(generation=expected)
    assert evaluator.generation == expected
    assert evaluator.generates is evaluator.needs_references is (expected == "on")


def test_another_value_for_generation_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"evaluator.generation: 'maybe'"):
        CounterFactEvaluator(generation="maybe")


def test_without_generation_nothing_is_drawn(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(1, "Anna", "piano", "violin", generation_prompts=("Anna plays",))

    def forbidden(*args: Any, **kwargs: Any) -> list[str]:
        raise AssertionError("texts were drawn")

    monkeypatch.setattr(generation, "generate", forbidden)
    (row,) = OFF(tiny_gpt2, [case], deltas=[None], seed=0)
    assert "text" not in row
    with pytest.raises(AssertionError, match="texts were drawn"):  # the control: it would have been noticed
        CounterFactEvaluator()(tiny_gpt2, [case], deltas=[None], seed=0)
