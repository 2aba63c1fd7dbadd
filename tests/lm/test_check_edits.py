"""Checks by numbers that a model can be edited: passed by good models, and each failed by a model with that fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import assert_weights, weights_of

from romexp.errors import RecordError
from romexp.lm import check_edits
from romexp.lm.check_architecture import Finding, findings
from romexp.lm.check_edits import edit_findings, tokenizer_facts
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import TargetScore, score
from romexp.lm.weight_delta import WeightDelta

QUERIES = [
    Query(prompt="Steve Jobs plays the", targets=("violin", "piano")),
    Query(prompt="It is said that Bob plays the", targets=("piano",)),
]


def measured(lm: LanguageModel) -> list[Finding]:
    return list(edit_findings(lm, QUERIES, range(lm.n_layers)))


def failed(lm: LanguageModel) -> set[str]:
    return {finding.name for finding in measured(lm) if not finding.passed}


def test_good_models_pass(tiny_lm: LanguageModel) -> None:
    before = weights_of(tiny_lm)
    found = [*findings(tiny_lm), *measured(tiny_lm)]
    assert [finding.name for finding in found if not finding.passed] == []
    assert len({finding.name for finding in found}) == len(found)
    assert_weights(tiny_lm, before)


def test_a_matrix_with_something_behind_it(tiny_gpt2: LanguageModel) -> None:
    module = tiny_gpt2.module(tiny_gpt2.architecture.mlp_out_name(1))
    handle = module.register_forward_hook(lambda _module, _inputs, output: 1.01 * output)
    try:
        assert "k·W of layer 1 = the recorded output" in failed(tiny_gpt2)
        assert "k·W of layer 0 = the recorded output" not in failed(tiny_gpt2)
    finally:
        handle.remove()


def test_an_output_that_an_edit_does_not_reach(tiny_gpt2: LanguageModel) -> None:
    module = tiny_gpt2.module(tiny_gpt2.architecture.mlp_out_name(0))
    kept: dict[str, torch.Tensor] = {}
    handle = module.register_forward_hook(lambda _module, _inputs, output: kept.setdefault("first", output.clone()))
    try:
        finding = next(f for f in edit_findings(tiny_gpt2, QUERIES, [0]) if "changes its output" in f.name)
        assert finding.measured == pytest.approx(1.0)
        assert not finding.passed
    finally:
        handle.remove()


def test_weights_that_stay_changed(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights_of(tiny_gpt2)
    real = check_edits.applied

    @contextmanager
    def careless(lm: LanguageModel, delta: WeightDelta) -> Iterator[LanguageModel]:
        with real(lm, delta):
            yield lm
        with torch.no_grad():
            for name in delta.terms:
                lm.parameter(name)[0, 0] += 1e-3

    monkeypatch.setattr(check_edits, "applied", careless)
    assert "weights of layer 0 after the edit" in failed(tiny_gpt2)
    for name, value in before.items():
        with torch.no_grad():
            tiny_gpt2.model.state_dict()[name].copy_(value)


def test_scores_of_something_else(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(*args: Any, **kwargs: Any) -> list[tuple[TargetScore, ...] | RecordError]:
        found = score(*args, **kwargs)
        return [f if isinstance(f, RecordError) else tuple(replace(s, nll=s.nll + 0.1) for s in f) for f in found]

    monkeypatch.setattr(check_edits, "score", worse)
    assert {name.split(",")[0] for name in failed(tiny_gpt2)} == {
        "NLLs of the unedited model",
        "NLLs of an edited model",
    }


def test_facts_about_the_tokenizer(tiny_gpt2: LanguageModel) -> None:
    facts = tokenizer_facts(tiny_gpt2, QUERIES)
    assert facts["before every text"] == "nothing"
    assert facts["prompts whose tokens stay as they are when an answer follows"] == "3 of 3"
    assert "Ġ" in facts["“Paris” with a space before it"]
