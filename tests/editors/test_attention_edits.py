"""AttnEdit (App. I): fine-tuning one layer's queries, keys and values, fused or separate, within a bound.

That each delta is the plain training loop's is in test_finetune.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from edit_cases import REQUESTS, no_moment, relative
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from romexp.editors.base import Resources, pick_layer
from romexp.editors.finetune import FineTune
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel

RESOURCES = Resources(second_moment=no_moment)


@pytest.fixture(scope="module")
def configured() -> FineTune:
    """`editor=ft_attn` on a model that has no values of its own."""
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        editor = instantiate(compose("config", overrides=["editor=ft_attn", "model=gpt2-xl"]).editor)
    assert isinstance(editor, FineTune)
    return editor


def test_the_papers_values(configured: FineTune) -> None:
    expected = FineTune(
        name="AttnEdit", module="attn_qkv", lr=1e-3, norm_constraint=1e-3, num_steps=25, layer_fraction=0.6875
    )
    assert configured == expected

    class Xl:
        n_layers = 48

    assert pick_layer(Xl(), layer=configured.layer, fraction=configured.layer_fraction) == 33  # type: ignore[arg-type]


class TestEveryFamily:
    def test_all_of_q_k_and_v_are_trained_and_nothing_else(self, tiny_lm: LanguageModel, configured: FineTune) -> None:
        """The layer of four that 33 of 48 is. Each of the three maps moves, whether it has a matrix of its own or a
        part of one, and reaches the bound."""
        edits = configured(tiny_lm, REQUESTS, resources=RESOURCES)
        modules = tiny_lm.architecture.attn_qkv_names(3)
        parameters = dict(tiny_lm.model.named_parameters())
        expected = {f"{m}.{kind}" for m in modules for kind in ("weight", "bias")} & set(parameters)
        for edit in edits:
            assert set(edit.delta.terms) == expected
            for name, term in edit.delta.terms.items():
                assert term.shape == tuple(weight_in_out(tiny_lm, name).shape)
                assert float(term.dense().abs().max()) == pytest.approx(1e-3, rel=1e-5)
            weights = [edit.delta.terms[f"{module}.weight"].dense() for module in modules]
            maps = weights if len(weights) == 3 else parts(tiny_lm, weights[0])
            assert all((part.abs() > 0.9e-3).float().mean() > 0.05 for part in maps)

    def test_a_batch_is_each_request_alone(self, tiny_lm: LanguageModel, configured: FineTune) -> None:
        """Weights alone: a key's bias has no effect, and Adam makes steps of its rounding."""
        tuner = replace(configured, num_steps=6, train_bias=False, norm_constraint=None)
        together = tuner(tiny_lm, REQUESTS, resources=RESOURCES)
        for edit, request in zip(together, REQUESTS, strict=True):
            (alone,) = tuner(tiny_lm, [request], resources=RESOURCES)
            for name, term in edit.delta.terms.items():
                assert relative(term.dense(), alone.delta.terms[name].dense()) < 1e-2

    def test_a_wider_bound_lets_more_change(self, tiny_lm: LanguageModel, configured: FineTune) -> None:
        """The sweep of App. I."""
        reached = [
            replace(configured, norm_constraint=bound)(tiny_lm, REQUESTS[:1], resources=RESOURCES)[0]
            for bound in (5e-4, 1e-3, 5e-3)
        ]
        losses = [edit.diagnostics["loss"][-1] for edit in reached]
        assert losses == sorted(losses, reverse=True)
        norms = [edit.delta.norm() for edit in reached]
        assert norms == sorted(norms)
        assert norms[0] < 0.7 * norms[1]


def parts(lm: LanguageModel, fused: torch.Tensor) -> list[torch.Tensor]:
    """Q, K and V of a fused matrix (in × out): side by side in GPT-2, by head in GPT-NeoX."""
    if lm.architecture.family == "gpt2":
        return list(fused.chunk(3, dim=1))
    heads = lm.model.config.num_attention_heads
    by_head = fused.view(fused.shape[0], heads, 3, -1)
    return [by_head[:, :, i] for i in range(3)]
