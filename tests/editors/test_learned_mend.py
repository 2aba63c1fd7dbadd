"""MEND's low-rank deltas are those of whole matrices, its statistics those of Welford, its birth the identity."""

from __future__ import annotations

from collections.abc import Callable

import naive_learned
import pytest
import torch
from conftest import FAMILIES
from learned_cases import MEND, born_mend, dense, distance, factors_of, losses_of, one, texts_of
from naive_learned import RunningStatistics

from romexp.editors.learned.editor import Mend
from romexp.editors.learned.factors import EditFactors
from romexp.editors.learned.mend import GradientTransform, MendNetwork, ResidualLayer, transform_key
from romexp.errors import DataError
from romexp.lm.apply_delta import overlay
from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.model import LanguageModel


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


def empty_statistics(network: MendNetwork) -> dict[str, tuple[RunningStatistics, RunningStatistics]]:
    return {transform_key(shape): (RunningStatistics(), RunningStatistics()) for shape in network.shapes.values()}


def raw(factors: EditFactors, i: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {name: (factors.inputs[name][i], factors.gradients[name][i]) for name in factors.inputs}


def shaken(lm: LanguageModel) -> MendNetwork:
    network = born_mend(lm)
    naive_learned.shake(network)
    return network


def test_deltas_are_those_of_whole_matrices(lm: LanguageModel) -> None:
    """A training pass over two requests, then all four with frozen statistics. Measured 2e-6."""
    network = MEND.new_network(lm, seed=0)
    naive_learned.shake(network)
    factors = factors_of(lm, network.edited)
    statistics = empty_statistics(network)
    for i in (0, 1):
        (delta,) = network(one(factors, i))
        assert distance(delta, naive_learned.mend(network, raw(factors, i), statistics, update=True)) < 1e-4
    network.eval()
    for i, delta in enumerate(network(factors)):
        expected = naive_learned.mend(network, raw(factors, i), statistics, update=False)
        assert distance(delta, expected) < 1e-4
        assert distance(network(one(factors, (i + 1) % 4))[0], expected) > 0.1


def test_at_birth_it_is_the_normalized_factors_product_times_the_step_size(tiny_gpt2: LanguageModel) -> None:
    network = born_mend(tiny_gpt2)
    factors = factors_of(tiny_gpt2, network.edited)
    for i, delta in enumerate(network(factors)):
        for name, term in delta.terms.items():
            mask = factors.masks[name][i]
            x, g = network.transform(name).normalize(factors.inputs[name][i][mask], factors.gradients[name][i][mask])
            assert torch.allclose(term.dense(), 1e-4 * x.T @ g, atol=1e-6)
            assert term.dense().norm() > 1e-4


class TestResidualLayer:
    def test_is_the_identity_at_birth_and_yet_learns(self) -> None:
        layer = ResidualLayer(6, rank=3, n_modes=2)
        x = torch.randn(4, 6)
        assert torch.equal(layer(x, 1), x)
        layer(x, 1).sum().backward()
        assert layer.u.grad is not None
        assert layer.u.grad.norm() > 0

    def test_each_mode_has_its_own_scale_and_shift(self) -> None:
        layer = ResidualLayer(6, rank=3, n_modes=2)
        with torch.no_grad():
            layer.mode_shift[1] = 2.0
        x = torch.randn(4, 6)
        assert torch.equal(layer(x, 0), x)
        assert torch.equal(layer(x, 1), x + 2)

    def test_its_rank_is_at_most_its_width(self) -> None:
        assert ResidualLayer(6, rank=1920, n_modes=1).u.shape == (6, 6)


class TestStatistics:
    def test_blocks_of_rows_are_rows_one_by_one(self) -> None:
        transform = GradientTransform(5, 3, n_modes=1, rank=2, n_hidden=1)
        x, delta = 3 + 10 * torch.randn(40, 5), 0.01 * torch.randn(40, 3)
        for rows in (slice(0, 1), slice(1, 1), slice(1, 18), slice(18, 40)):
            transform.observe(x[rows], delta[rows])
        assert int(transform.count) == 40
        normal_x, normal_delta = transform.normalize(x, delta)
        assert torch.allclose(normal_x, (x - x.mean(0)) / (x.std(0) + 1e-7), atol=1e-4)
        assert torch.allclose(normal_delta, (delta - delta.mean(0)) / (delta.std(0) + 1e-7), atol=1e-4)

    def test_training_mode_updates_them_and_evaluation_does_not(self, tiny_gpt2: LanguageModel) -> None:
        network = MEND.new_network(tiny_gpt2, seed=0)
        factors = factors_of(tiny_gpt2, network.edited)
        counts = []
        for mode in (True, False, True):
            network.train(mode)(factors)
            counts.append([int(network.transform(name).count) for name in network.edited])
        rows = [
            sum(int(factors.masks[n].sum()) for n in network.edited if network.shapes[n] == s)
            for s in network.shapes.values()
        ]
        assert counts == [rows, rows, [2 * n for n in rows]]

    def test_without_any_it_says_so(self, tiny_gpt2: LanguageModel) -> None:
        network = MEND.new_network(tiny_gpt2, seed=0)
        factors = factors_of(tiny_gpt2, network.edited)
        with pytest.raises(DataError, match="never run in training mode"):
            network.eval()(factors)

    def test_forgetting_them_is_a_new_beginning(self, tiny_gpt2: LanguageModel) -> None:
        network = born_mend(tiny_gpt2)
        network.reset_statistics()
        again = network.train()(factors_of(tiny_gpt2, network.edited))
        new = MEND.new_network(tiny_gpt2, seed=0)
        first = new(factors_of(tiny_gpt2, new.edited))
        for a, b in zip(again, first, strict=True):
            assert distance(a, dense(b)) == 0


class TestBatches:
    def test_a_batch_is_each_request_alone(self, tiny_lm: LanguageModel) -> None:
        network = shaken(tiny_lm)
        factors = factors_of(tiny_lm, network.edited)
        together = network(factors)
        for i, delta in enumerate(together):
            (alone,) = network(one(factors, i))
            assert distance(delta, dense(alone)) < 1e-5
            assert distance(together[i - 1], dense(alone)) > 0.1

    def test_in_training_mode_too(self, tiny_gpt2: LanguageModel) -> None:
        """The requests of a batch come one after another."""
        networks = [MEND.new_network(tiny_gpt2, seed=0) for _ in range(2)]
        factors = factors_of(tiny_gpt2, networks[0].edited)
        together = networks[0](factors)
        alone = [networks[1](one(factors, i))[0] for i in range(4)]
        for a, b in zip(together, alone, strict=True):
            assert distance(a, dense(b)) < 1e-5

    def test_ranks_are_the_batchs_tokens_with_a_gradient(self, tiny_gpt2: LanguageModel) -> None:
        network = born_mend(tiny_gpt2)
        factors = factors_of(tiny_gpt2, network.edited)
        for delta in network(factors):
            for name, term in delta.terms.items():
                assert term.left.shape[1] == int(factors.masks[name].sum(dim=1).max())


class TestGradients:
    def test_reach_every_parameter_through_the_edited_model(self, tiny_lm: LanguageModel) -> None:
        network = shaken(tiny_lm).train()
        texts = texts_of(tiny_lm)
        factors = factors_of(tiny_lm, network.edited)
        with overlay(tiny_lm, network(factors)):
            final = run_blocks(tiny_lm, make_inputs(tiny_lm, [Row.text(text.ids) for text in texts]))
            loss = losses_of(tiny_lm, final, texts).mean()
        loss.backward()
        without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not without
        assert all(p.grad is None for p in tiny_lm.model.parameters())

    def test_training_lowers_the_loss(self, tiny_gpt2: LanguageModel) -> None:
        network = Mend(rank=8, n_layers=2, edit_lr=1e-3).new_network(tiny_gpt2, seed=0)
        texts = texts_of(tiny_gpt2)
        factors = factors_of(tiny_gpt2, network.edited)
        groups = network.parameter_groups(lr=1e-3, lr_lr=1e-3)
        assert [group["lr"] for group in groups] == [1e-3, 1e-3]
        assert groups[1]["params"] == [network.edit_lrs]
        assert any(p is network.edit_lrs for p in groups[0]["params"])
        optimizers = [torch.optim.Adam(**group) for group in groups]
        losses = []
        for _ in range(8):
            with overlay(tiny_gpt2, network(factors)):
                final = run_blocks(tiny_gpt2, make_inputs(tiny_gpt2, [Row.text(text.ids) for text in texts]))
                loss = losses_of(tiny_gpt2, final, texts).mean()
            losses.append(loss.item())
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            for optimizer in optimizers:
                optimizer.zero_grad()
        assert losses[-1] < losses[0] - 0.3


def test_a_seed_gives_the_same_network(tiny_gpt2: LanguageModel) -> None:
    one_, same, other = (MEND.new_network(tiny_gpt2, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, same[name]) for name, value in one_.items())
    assert any(not torch.equal(value, other[name]) for name, value in one_.items())


def test_its_config_is_json_with_parameters_and_sizes(tiny_gpt2: LanguageModel) -> None:
    config = MEND.new_network(tiny_gpt2, seed=0).config
    assert config == {
        "kind": "mend",
        "parameters": {
            "transformer.h.2.mlp.c_proj.weight": [64, 32],
            "transformer.h.2.mlp.c_fc.weight": [32, 64],
            "transformer.h.3.mlp.c_proj.weight": [64, 32],
            "transformer.h.3.mlp.c_fc.weight": [32, 64],
        },
        "sizes": {"rank": 8, "n_hidden": 1, "edit_lr": 1e-4},
    }
