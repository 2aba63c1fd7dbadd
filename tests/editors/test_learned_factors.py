"""One pass over a batch gives, in factors, the gradient that autograd gives each request's weights alone."""

from __future__ import annotations

from collections.abc import Callable

import naive_learned
import pytest
import torch
from conftest import FAMILIES
from edit_cases import REQUESTS, relative
from learned_cases import factors_of, texts_of, weight_gradient

from romexp.editors.learned.base import default_parameters
from romexp.editors.learned.factors import edit_factors
from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


@pytest.mark.parametrize("n_layers", [2, 4])
def test_products_of_the_factors_are_autograds_gradients(lm: LanguageModel, n_layers: int) -> None:
    """Measured 4e-6; with all four layers nothing lies below the edit."""
    names = default_parameters(lm, n_layers)
    texts = texts_of(lm)
    factors = edit_factors(lm, texts, names)
    for i, text in enumerate(texts):
        expected, loss = naive_learned.gradients(lm, text, names)
        assert float(factors.losses[i]) == pytest.approx(loss, abs=1e-5)
        for name in names:
            assert expected[name].norm() > 1e-3
            assert relative(weight_gradient(factors, name)[i], expected[name]) < 1e-4
            assert relative(weight_gradient(factors, name)[i - 1], expected[name]) > 0.1


def test_attention_matrices_have_factors_too(tiny_gpt2: LanguageModel) -> None:
    name = tiny_gpt2.architecture.attn_qkv_names(2)[0] + ".weight"
    (text, *_) = texts_of(tiny_gpt2)
    expected, _ = naive_learned.gradients(tiny_gpt2, text, (name,))
    assert relative(weight_gradient(edit_factors(tiny_gpt2, [text], [name]), name)[0], expected[name]) < 1e-4


def test_the_default_matrices_are_both_of_the_mlp_in_the_last_layers(tiny_lm: LanguageModel) -> None:
    names = default_parameters(tiny_lm, 3)
    architecture = tiny_lm.architecture
    assert set(names) == {
        f"{path}.weight" for i in (1, 2, 3) for path in (architecture.mlp_in_name(i), architecture.mlp_out_name(i))
    }
    if tiny_lm.name == "tiny-gpt2":
        assert [name.split(".h.")[1] for name in names[:2]] == ["1.mlp.c_proj.weight", "1.mlp.c_fc.weight"]
    if tiny_lm.name == "tiny-gptj":
        assert [name.split(".h.")[1] for name in names[:2]] == ["1.mlp.fc_in.weight", "1.mlp.fc_out.weight"]
    with pytest.raises(ConfigError, match=r"editor\.n_layers: expected 1…4"):
        default_parameters(tiny_lm, 5)


class TestMasks:
    def test_only_tokens_with_a_gradient_are_kept(self, tiny_gpt2: LanguageModel) -> None:
        """In the last block only the places that predict the target matter; below it, all before them too."""
        names = default_parameters(tiny_gpt2, 2)
        texts = texts_of(tiny_gpt2)
        factors = edit_factors(tiny_gpt2, texts, names)
        for name in names:
            last = name.startswith("transformer.h.3.")
            for mask, text in zip(factors.masks[name], texts, strict=True):
                first = text.target_start - 1 if last else 0
                assert mask.nonzero()[:, 0].tolist() == list(range(first, len(text.ids) - 1))

    def test_everything_else_is_zero(self, tiny_gpt2: LanguageModel) -> None:
        names = default_parameters(tiny_gpt2, 1)
        factors = factors_of(tiny_gpt2, names)
        for name in names:
            assert not factors.masks[name].all()
            assert not factors.inputs[name][~factors.masks[name]].any()
            assert not factors.gradients[name][~factors.masks[name]].any()
            assert factors.inputs[name][factors.masks[name]].any(dim=-1).all()

    def test_a_token_with_no_input_is_left_out(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("gpt2")
        name = "transformer.h.3.mlp.c_proj.weight"
        handle = lm.module("transformer.h.3.mlp.act").register_forward_hook(lambda _m, _a, out: out * 0)
        try:
            factors = factors_of(lm, (name,))
        finally:
            handle.remove()
        assert not factors.masks[name].any()


class TestBatches:
    def test_a_batch_is_each_request_alone(self, tiny_lm: LanguageModel) -> None:
        names = default_parameters(tiny_lm, 2)
        together = factors_of(tiny_lm, names)
        for i, request in enumerate(REQUESTS):
            alone = factors_of(tiny_lm, names, [request])
            width = alone.masks[names[0]].shape[1]
            for name in names:
                assert torch.equal(together.masks[name][i, :width], alone.masks[name][0])
                assert relative(together.inputs[name][i, :width], alone.inputs[name][0]) < 1e-5
                assert relative(together.gradients[name][i, :width], alone.gradients[name][0]) < 1e-4

    def test_nothing_of_the_model_gets_a_gradient(
        self, tiny_gpt2: LanguageModel, guard: Callable[[LanguageModel], None]
    ) -> None:
        guard(tiny_gpt2)
        factors = factors_of(tiny_gpt2, default_parameters(tiny_gpt2, 2))
        assert all(p.grad is None and not p.requires_grad for p in tiny_gpt2.model.parameters())
        assert not any(x.requires_grad for x in (*factors.inputs.values(), *factors.gradients.values()))
        assert not any(module._forward_hooks for module in tiny_gpt2.model.modules())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no parameter"),
        (("transformer.h.9.mlp.c_fc.weight",), "has no 'transformer.h.9"),
        (("transformer.wte.weight",), "inside a block"),
        (("transformer.h.1.mlp.c_fc.bias",), "not the weight of a linear map"),
        (("transformer.h.1.ln_1.weight",), "not the weight of a linear map"),
    ],
)
def test_other_parameters_are_refused(tiny_gpt2: LanguageModel, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        edit_factors(tiny_gpt2, texts_of(tiny_gpt2), names)


def test_half_precision(tiny_factory: Callable[..., LanguageModel]) -> None:
    half, full = tiny_factory("llama", dtype=torch.bfloat16), tiny_factory("llama")
    names = default_parameters(full, 2)
    rounded, exact = factors_of(half, names, REQUESTS[:2]), factors_of(full, names, REQUESTS[:2])
    for name in names:
        assert rounded.inputs[name].dtype == rounded.gradients[name].dtype == torch.float32
        assert relative(weight_gradient(rounded, name), weight_gradient(exact, name)) < 0.3
