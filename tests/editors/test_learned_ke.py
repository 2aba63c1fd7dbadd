"""KE's low-rank delta is its formula on the whole gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import naive_learned
import pytest
import torch
from conftest import FAMILIES
from edit_cases import REQUESTS
from learned_cases import SMALL_KE, born_ke, dense, distance, factors_of, losses_of, one, texts_of

from romexp.editors.learned.ke import NormedLinear
from romexp.lm.apply_delta import overlay
from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import LowRank


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


def test_deltas_are_those_of_whole_matrices(lm: LanguageModel) -> None:
    """s · (∇W ⊙ A + B) with autograd's ∇W. Measured 2e-6."""
    network = born_ke(lm)
    naive_learned.shake(network)
    texts = texts_of(lm)
    deltas = network(factors_of(lm, network.edited))
    for i, text in enumerate(texts):
        gradient, _ = naive_learned.gradients(lm, text, network.edited)
        expected = naive_learned.ke(network, text, gradient)
        assert distance(deltas[i], expected) < 1e-4
        assert distance(deltas[i - 1], expected) > 0.01


def test_the_gradient_matters_and_so_does_the_text(tiny_gpt2: LanguageModel) -> None:
    network = born_ke(tiny_gpt2)
    factors = factors_of(tiny_gpt2, network.edited, REQUESTS[:1])
    (delta,) = network(factors)
    doubled = {name: 2 * g for name, g in factors.gradients.items()}
    other_text = (tuple(reversed(factors.ids[0])),)
    for changed in (replace(factors, gradients=doubled), replace(factors, ids=other_text)):
        assert distance(network(changed)[0], dense(delta)) > 1e-3


def test_the_rank_is_tokens_plus_one(tiny_gpt2: LanguageModel) -> None:
    network = born_ke(tiny_gpt2)
    factors = factors_of(tiny_gpt2, network.edited)
    for delta in network(factors):
        for name, term in delta.terms.items():
            assert isinstance(term, LowRank)
            assert term.left.shape[1] == int(factors.masks[name].sum(dim=1).max()) + 1


def test_max_scale_is_a_factor(tiny_gpt2: LanguageModel) -> None:
    network = born_ke(tiny_gpt2)
    factors = factors_of(tiny_gpt2, network.edited)
    full = network(factors)
    network.max_scale = 0.25
    for delta, before in zip(network(factors), full, strict=True):
        assert distance(delta, {name: value / 4 for name, value in dense(before).items()}) < 1e-6


def test_a_batch_is_each_request_alone(tiny_lm: LanguageModel) -> None:
    network = born_ke(tiny_lm)
    factors = factors_of(tiny_lm, network.edited)
    for i, delta in enumerate(network(factors)):
        assert distance(delta, dense(network(one(factors, i))[0])) < 1e-5


def test_the_embedding_begins_as_the_models(tiny_gpt2: LanguageModel) -> None:
    network = born_ke(tiny_gpt2)
    weight = tiny_gpt2.parameter("transformer.wte.weight")
    assert torch.equal(network.condition.embedding.weight, weight)
    assert network.condition.embedding.weight.data_ptr() != weight.data_ptr()


def test_gradients_reach_every_parameter_through_the_edited_model(tiny_lm: LanguageModel) -> None:
    network = born_ke(tiny_lm).train()
    texts = texts_of(tiny_lm)
    with overlay(tiny_lm, network(factors_of(tiny_lm, network.edited))):
        final = run_blocks(tiny_lm, make_inputs(tiny_lm, [Row.text(text.ids) for text in texts]))
        losses_of(tiny_lm, final, texts).mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(p.grad is None for p in tiny_lm.model.parameters())
    (group,) = network.parameter_groups(lr=1e-5, lr_lr=1e-4)
    assert group["lr"] == 1e-5
    assert len(group["params"]) == len(list(network.parameters()))


def test_weight_normalization_is_torchs() -> None:
    linear = NormedLinear(5, 3)
    plain = torch.nn.Linear(5, 3)
    with torch.no_grad():
        plain.weight.copy_(linear.direction)
        plain.bias.copy_(linear.bias)
        x = torch.randn(2, 5)
        assert torch.allclose(linear(x), plain(x), atol=1e-6)
        normed = torch.nn.utils.parametrizations.weight_norm(plain)
        for parameter in (linear.scale, normed.parametrizations.weight.original0):
            parameter.fill_(0.7)
        assert torch.allclose(linear(x), normed(x), atol=1e-6)


def test_a_seed_gives_the_same_network(tiny_gpt2: LanguageModel) -> None:
    one_, same, other = (SMALL_KE.new_network(tiny_gpt2, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, same[name]) for name, value in one_.items())
    assert any(not torch.equal(value, other[name]) for name, value in one_.items())
