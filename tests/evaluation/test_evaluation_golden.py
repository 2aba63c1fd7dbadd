"""Numbers of the authors' implementation on a model that knows its facts (the golden folder's README)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naive_measures import correct

from romexp.evaluation.counterfact import CounterFactEvaluator
from romexp.evaluation.zsre import ZsreEvaluator
from romexp.facts import Case, EditRequest
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.lm.weight_delta import LowRank, WeightDelta

KINDS = ("rewrite_prompts", "paraphrase_prompts", "neighborhood_prompts", "attribute_prompts")


@pytest.fixture(scope="module")
def golden_lm(golden: Path) -> LanguageModel:
    return PretrainedModel(path=str(golden / "model"), device="cpu").load()


@pytest.fixture(scope="module")
def golden_cases(golden: Path) -> list[Case]:
    return [as_case(record) for record in json.loads((golden / "records.json").read_text())]


def as_case(record: dict[str, Any]) -> Case:
    rewrite = record["requested_rewrite"]
    return Case(
        case_id=record["case_id"],
        request=EditRequest(
            subject=rewrite["subject"],
            prompt=rewrite["prompt"],
            target_new=rewrite["target_new"]["str"],
            target_true=rewrite["target_true"]["str"],
        ),
        **{kind: tuple(record[kind]) for kind in KINDS[1:]},
    )


def test_nlls_before_and_after_the_authors_edits(
    golden: Path, golden_lm: LanguageModel, golden_cases: list[Case]
) -> None:
    arrays = np.load(golden / "rome.npz")
    expected = json.loads((golden / "nll.json").read_text())
    assert [case.case_id for case in golden_cases] == arrays["case_id"].tolist() == [e["case_id"] for e in expected]
    deltas = [
        WeightDelta(
            terms={
                "transformer.h.3.mlp.c_proj.weight": LowRank(
                    left=torch.from_numpy(u)[:, None], right=torch.from_numpy(right)[:, None]
                )
            }
        )
        for u, right in zip(arrays["u"], arrays["right"], strict=True)
    ]
    n = len(golden_cases)
    evaluator = CounterFactEvaluator(generation=False)
    rows = evaluator(golden_lm, golden_cases * 2, deltas=[None] * n + deltas, seed=0)
    for kind in KINDS:
        for row, numbers in zip(rows, [e["pre"] for e in expected] + [e["rome"] for e in expected], strict=True):
            np.testing.assert_allclose(row[kind], numbers[kind], atol=1e-4, rtol=1e-4)
    before, after = rows[0]["rewrite_prompts"][0], rows[n]["rewrite_prompts"][0]
    assert before[0] > before[1]  # the control: the fact was there, and the edit turned it
    assert after[0] < after[1]


def test_accuracy_on_facts_that_the_model_knows(golden_lm: LanguageModel, golden_cases: list[Case]) -> None:
    cases = [
        Case(
            case_id=case.case_id,
            request=EditRequest(
                subject=case.request.subject,
                prompt=case.request.prompt,
                target_new=case.request.target_true,
                target_true="<|endoftext|>",
            ),
            paraphrase_prompts=case.paraphrase_prompts[:1],
            neighborhood_prompts=case.neighborhood_prompts[:1],
            neighborhood_targets=(case.request.target_new,),
        )
        for case in golden_cases
    ]
    rows = ZsreEvaluator()(golden_lm, cases, deltas=[None] * len(cases), seed=0)
    for row, case in zip(rows, cases, strict=True):
        answer = case.request.target_new
        assert row["rewrite_prompts_correct"] == correct(golden_lm, case.request.text, answer)
        assert row["paraphrase_prompts_correct"] == correct(golden_lm, case.paraphrase_prompts[0], answer)
    known = np.mean([right for row in rows for right in row["rewrite_prompts_correct"]])
    wrong = np.mean([right for row in rows for right in row["neighborhood_prompts_correct"]])
    assert known > 0.9
    assert wrong < 0.5
