"""The losses, against what scoring and whole forward passes on really edited weights give."""

from __future__ import annotations

import pytest
import torch
from learning_cases import draws, step_network
from torch.nn import functional

from romexp.editors.learned.factors import edit_factors
from romexp.learning.objective import losses
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel


def batch(lm: LanguageModel, count: int = 3):  # type: ignore[no-untyped-def]
    return draws(lm, outers=2, locality_texts=2).training(1, count)


def naive(lm: LanguageModel, draw, network) -> tuple[float, float, float]:  # type: ignore[no-untyped-def]
    """One edit at a time, on edited weights, one text at a time, without padding."""
    (delta,) = network(edit_factors(lm, [draw.text], network.edited))
    nlls, right, divergences = [], [], []
    before = [lm.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1) for ids in draw.locality]
    with applied(lm, delta):
        for text in draw.outers:
            logits = lm.model(input_ids=torch.tensor([text.ids])).logits[0]
            target = torch.tensor(text.ids[text.target_start :])
            predicted = logits[text.target_start - 1 : -1]
            nlls.append(float(functional.cross_entropy(predicted, target)))
            right.append(float((predicted.argmax(-1) == target).all()))
        for ids, old in zip(draw.locality, before, strict=True):
            new = lm.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            divergences += functional.kl_div(new, old, reduction="none", log_target=True).sum(-1).tolist()
    means = (sum(values) / len(values) for values in (nlls, divergences, right))
    return tuple(means)  # type: ignore[return-value]


@torch.no_grad()
def test_losses_are_those_of_edited_weights(tiny_lm: LanguageModel) -> None:
    network = step_network(tiny_lm, 0.3)
    chosen = batch(tiny_lm)
    found = losses(tiny_lm, network, chosen)
    expected = [naive(tiny_lm, draw, network) for draw in chosen]
    got = list(zip(*(x.tolist() for x in (found.edit, found.locality, found.accuracy)), strict=True))
    for one, other in zip(got, expected, strict=True):
        assert one == pytest.approx(other, rel=2e-3, abs=2e-5)
    assert min(found.locality) > 1e-4, "the edits change nothing: the comparison shows nothing"


def test_no_change_costs_no_locality(tiny_gpt2: LanguageModel) -> None:
    nothing, something = (losses(tiny_gpt2, step_network(tiny_gpt2, step), batch(tiny_gpt2)) for step in (0.0, 0.3))
    assert nothing.locality.abs().max() < 1e-6
    assert something.edit.mean() < nothing.edit.mean()


def test_a_batch_is_its_edits(tiny_gpt2: LanguageModel) -> None:
    network, chosen = step_network(tiny_gpt2, 0.3), batch(tiny_gpt2)
    together = losses(tiny_gpt2, network, chosen)
    alone = [losses(tiny_gpt2, network, [draw]) for draw in chosen]
    for name in ("edit", "locality", "accuracy"):
        separate = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), separate, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_network_and_nothing_else(tiny_gpt2: LanguageModel) -> None:
    network = step_network(tiny_gpt2, 0.1)
    found = losses(tiny_gpt2, network, batch(tiny_gpt2))
    for loss in (found.edit, found.locality):
        (gradient,) = torch.autograd.grad(loss.mean(), [network.steps], retain_graph=True)
        assert (gradient != 0).all()
    assert all(parameter.grad is None for parameter in tiny_gpt2.model.parameters())


def test_the_gradient_is_the_slope(tiny_gpt2: LanguageModel) -> None:
    """Against a central difference of the whole objective."""
    chosen = batch(tiny_gpt2)

    @torch.no_grad()
    def total(step: float) -> float:
        found = losses(tiny_gpt2, step_network(tiny_gpt2, step), chosen)
        return float((found.edit + found.locality).mean())

    network = step_network(tiny_gpt2, 0.1)
    found = losses(tiny_gpt2, network, chosen)
    (gradient,) = torch.autograd.grad((found.edit + found.locality).mean(), [network.steps])
    assert float(gradient.sum()) == pytest.approx((total(0.11) - total(0.09)) / 0.02, rel=0.02)
