"""The optimization of δ: what it lowers, what bounds it, when it stops, and that requests do not see each other."""

from __future__ import annotations

from dataclasses import replace

import naive
import pytest
import torch
from edit_cases import REQUESTS, TEMPLATES, furthest, moment, relative, resources, term

from romexp.editors.base import Edit
from romexp.editors.rome.editor import Rome
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import score

STEERED = (
    replace(REQUESTS[1], target_new="Paris"),
    replace(REQUESTS[3], target_new="the"),
    replace(REQUESTS[0], target_new="the bank"),
    replace(REQUESTS[2], target_new="Paris Paris"),
)
ROME = Rome(
    layer=2,
    context_templates=TEMPLATES,
    fact_token="last",
    v_num_grad_steps=16,
    v_weight_decay=0.01,
    clamp_norm_factor=50.0,
)
"""At the last token even a random model can be steered, so that losses fall and requests finish."""


def edit(lm: LanguageModel, request: EditRequest = STEERED[0], **changes: object) -> Edit:
    (only,) = replace(ROME, **changes)(lm, [request], resources=resources())  # type: ignore[arg-type]
    return only


def test_the_loss_falls_and_is_the_sum_of_its_terms(tiny_lm: LanguageModel) -> None:
    for one in ROME(tiny_lm, STEERED, resources=resources()):
        d = one.diagnostics
        assert d["loss"][-1] < 0.75 * d["loss"][0]
        assert len(d["loss"]) == len(d["nll"]) == len(d["kl"]) == len(d["weight_decay"]) > 4
        for terms in zip(d["loss"], d["nll"], d["kl"], d["weight_decay"], strict=True):
            assert terms[0] == pytest.approx(sum(terms[1:]), abs=1e-5)


def test_the_first_pass_is_the_unedited_model(tiny_lm: LanguageModel) -> None:
    """Its NLL is the mean over the contexts of what scoring says; KL and decay are nothing yet."""
    edits = ROME(tiny_lm, STEERED, resources=resources())
    queries = [
        Query(prompt=template.replace("{}", r.text), targets=(r.target_new,)) for r in STEERED for template in TEMPLATES
    ]
    scores = torch.tensor([s.nll for (s,) in score(tiny_lm, queries)]).view(len(STEERED), -1).mean(dim=1)
    for one, expected in zip(edits, scores.tolist(), strict=True):
        assert one.diagnostics["nll"][0] == pytest.approx(expected, abs=1e-5)
        assert one.diagnostics["kl"][0] == pytest.approx(0, abs=1e-7)
        assert one.diagnostics["weight_decay"][0] == 0
        assert one.diagnostics["kl"][-1] > 1e-4
        assert one.diagnostics["weight_decay"][-1] > 1e-4


def test_the_last_pass_only_measures(tiny_gpt2: LanguageModel) -> None:
    """docs/method.md §3.6: n passes are n − 1 updates, so one pass leaves δ = 0."""
    one, two = edit(tiny_gpt2, v_num_grad_steps=1), edit(tiny_gpt2, v_num_grad_steps=2)
    assert len(one.diagnostics["loss"]) == 1
    assert one.diagnostics["delta_norm"] == 0
    assert float(term(one.delta).right.norm()) == pytest.approx(0, abs=1e-6)
    assert len(two.diagnostics["loss"]) == 2
    # Adam's first step is lr in every entry.
    assert two.diagnostics["delta_norm"] == pytest.approx(0.5 * 32**0.5, rel=1e-3)


@pytest.mark.parametrize("clamp", [0.5, 1.5])
def test_delta_is_bounded(tiny_lm: LanguageModel, clamp: float) -> None:
    """By the multiple of ‖v_0‖ that is asked for, which it reaches here; unbounded it would go further."""
    bounded = replace(ROME, clamp_norm_factor=clamp)(tiny_lm, STEERED, resources=resources())
    free = ROME(tiny_lm, STEERED, resources=resources())
    further = 0
    for one, other in zip(bounded, free, strict=True):
        d = one.diagnostics
        assert d["delta_norm"] <= clamp * d["initial_norm"] * (1 + 1e-5)
        if other.diagnostics["delta_norm"] > 1.2 * clamp * d["initial_norm"]:
            further += 1
            assert d["delta_norm"] == pytest.approx(clamp * d["initial_norm"], rel=1e-5)
    assert further


def test_a_loss_that_is_low_enough_stops_at_the_first_pass(tiny_gpt2: LanguageModel) -> None:
    stopped = edit(tiny_gpt2, v_loss_threshold=1000.0)
    assert len(stopped.diagnostics["loss"]) == 1
    assert stopped.diagnostics["delta_norm"] == 0
    assert float(term(stopped.delta).right.norm()) == pytest.approx(0, abs=1e-6)
    never = edit(tiny_gpt2, v_loss_threshold=0.0)
    assert len(never.diagnostics["loss"]) == 16


def test_each_request_stops_by_itself(tiny_lm: LanguageModel) -> None:
    """One finishing early changes nothing for the others, nor they for it."""
    rome = replace(ROME, v_loss_threshold=2.0)
    together = rome(tiny_lm, STEERED, resources=resources())
    alone = [rome(tiny_lm, [request], resources=resources())[0] for request in STEERED]
    passes = [len(one.diagnostics["loss"]) for one in together]
    assert len(set(passes)) > 1
    assert passes == [len(one.diagnostics["loss"]) for one in alone]
    assert furthest(together, alone) < 1e-3
    for one in together:
        assert all(loss >= 2 for loss in one.diagnostics["loss"][:-1])
    for one, early in zip(ROME(tiny_lm, STEERED, resources=resources()), together, strict=True):
        if len(early.diagnostics["loss"]) < 16:  # a control: it would have gone on
            assert len(one.diagnostics["loss"]) > len(early.diagnostics["loss"])
            assert relative(term(early.delta).right, term(one.delta).right) > 0.01


def test_finished_requests_leave_the_batch(tiny_gpt2: LanguageModel) -> None:
    """From the pass after, their texts (one a context and the KL text) run through no block any more."""
    rows: list[int] = []

    def count(_module: object, args: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            rows.append(args[0].shape[0])

    handle = tiny_gpt2.block(3).register_forward_pre_hook(count)
    try:
        edits = replace(ROME, v_loss_threshold=2.0)(tiny_gpt2, STEERED, resources=resources())
    finally:
        handle.remove()
    passes = [len(one.diagnostics["loss"]) for one in edits]
    assert min(passes) < 16
    assert sum(rows) == (len(TEMPLATES) + 1) * sum(passes)


def test_the_pass_that_stops_is_that_of_the_plain_computation(tiny_gpt2: LanguageModel) -> None:
    for request in STEERED[:2]:
        plain = naive.rome(
            tiny_gpt2,
            request,
            TEMPLATES,
            layer=2,
            moment=moment(),
            steps=16,
            decay=0.01,
            clamp=50.0,
            threshold=2.0,
            fact_token="last",
        )
        mine = edit(tiny_gpt2, request, v_loss_threshold=2.0)
        assert len(plain.losses) < 16
        assert mine.diagnostics["loss"] == pytest.approx(plain.losses, abs=1e-3)
        assert relative(term(mine.delta).right[:, 0], plain.right) < 1e-3


def test_factors_weigh_their_terms(tiny_gpt2: LanguageModel) -> None:
    """More weight on KL or decay keeps the distribution, or δ, nearer to where it was."""
    loose, held = edit(tiny_gpt2, kl_factor=1e-6), edit(tiny_gpt2, kl_factor=3.0)
    assert held.diagnostics["kl"][-1] / 3.0 < 0.5 * loose.diagnostics["kl"][-1] / 1e-6
    free, decayed = edit(tiny_gpt2, v_weight_decay=0.0), edit(tiny_gpt2, v_weight_decay=100.0)
    assert decayed.diagnostics["delta_norm"] < 0.8 * free.diagnostics["delta_norm"]
    assert free.diagnostics["weight_decay"] == [0.0] * len(free.diagnostics["loss"])
