"""A model that computes something else than what all code takes for granted is refused by numbers, in one line."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MORE_FAMILIES, assert_weights, make_tokenizer, weights_of
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import romexp
from romexp.errors import ConfigError
from romexp.lm import check_architecture
from romexp.lm.architecture import GPT2, LLAMA, UNFIT, Architecture, architecture_for
from romexp.lm.check_architecture import check_numbers
from romexp.lm.forward import Row, logits, make_inputs, run_blocks
from romexp.lm.model import LanguageModel, prepare

LLAMA_LIKE = {**MORE_FAMILIES["olmo"], "pad_token_id": 0}
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
BLOOM = Architecture(
    family="bloom",
    layers="transformer.h",
    embedding="transformer.word_embeddings",
    final_norm="transformer.ln_f",
    mlp="mlp",
    mlp_in="mlp.dense_h_to_4h",
    mlp_out="mlp.dense_4h_to_h",
    attn="self_attention",
    attn_qkv=("self_attention.query_key_value",),
)
OPT = replace(
    LLAMA,
    layers="model.decoder.layers",
    embedding="model.decoder.embed_tokens",
    final_norm="model.decoder.final_layer_norm",
    mlp="fc2",
    mlp_in="fc1",
    mlp_out="fc2",
)
MPT = replace(
    BLOOM,
    layers="transformer.blocks",
    embedding="transformer.wte",
    final_norm="transformer.norm_f",
    mlp="ffn",
    mlp_in="ffn.up_proj",
    mlp_out="ffn.down_proj",
    attn="attn",
    attn_qkv=("attn.Wqkv",),
)
REFUSED: dict[str, tuple[Architecture, dict[str, object], str]] = {
    "gemma2": (LLAMA, {**LLAMA_LIKE, "head_dim": 8}, "is not its input + self_attn + mlp"),
    "gemma3_text": (LLAMA, {**LLAMA_LIKE, "head_dim": 8}, "is not its input + self_attn + mlp"),
    "olmo2": (LLAMA, LLAMA_LIKE, "is not its input + self_attn + mlp"),
    "granite": (LLAMA, {**LLAMA_LIKE, "residual_multiplier": 0.22}, "is not its input + self_attn + mlp"),
    "bloom": (BLOOM, {"hidden_size": 32, "n_layer": 4, "n_head": 4}, "ALiBi"),
    "falcon": (BLOOM, {**WIDTHS, "alibi": True}, "ALiBi"),
    "mpt": (MPT, {"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 128, "expansion_ratio": 2}, "logits"),
    "opt": (OPT, {**WIDTHS, "ffn_dim": 64, "word_embed_proj_dim": 32}, "must be (texts, tokens, hidden size)"),
}


def model_of(family: str, settings: dict[str, object], dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2}
    config = AutoConfig.for_model(family, **{**sizes, **settings})
    return AutoModelForCausalLM.from_config(config).to(dtype)


def refusal(model: PreTrainedModel, architecture: Architecture) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(model, make_tokenizer(), architecture=architecture, name="mine")
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestWhatIsRefused:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("family", list(REFUSED))
    def test_families_that_compute_something_else(self, family: str, dtype: torch.dtype) -> None:
        architecture, settings, reason = REFUSED[family]
        text = refusal(model_of(family, settings, dtype), architecture)
        assert text.startswith(f"model 'mine' (model_type {family!r}) cannot be used: ")
        if family != "mpt" or dtype == torch.float32:
            assert reason in text

    @pytest.mark.parametrize("family", list(UNFIT))
    def test_before_their_weights_are_downloaded(self, family: str) -> None:
        with pytest.raises(ConfigError, match=rf"model_type '{family}' cannot be used: it .* before adding it"):
            architecture_for(family)

    def test_a_granite_that_multiplies_by_one_is_taken(self) -> None:
        """Numbers decide, not names. Its logits are divided after the head."""
        model = model_of("granite", {**LLAMA_LIKE, "residual_multiplier": 1.0, "logits_scaling": 8.0})
        lm = prepare(model, make_tokenizer(), architecture=LLAMA, name="mine")
        assert not lm.plain_head
        assert_own_logits(lm)

    def test_objects_in_the_python_face(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("llama")
        assert romexp.load(lm.model, lm.tokenizer).n_layers == 4
        _multiply(lm, "model.layers.2.mlp.act_fn")  # harmless: the sum still holds
        assert romexp.load(lm.model, lm.tokenizer).n_layers == 4
        lm.block(2).register_forward_hook(lambda _m, _a, out: out * 1.01)
        with pytest.raises(ConfigError, match=r"the output of model\.layers\.2 is not its input"):
            romexp.load(lm.model, lm.tokenizer)

    def test_a_matrix_that_is_not_the_mlps_last_step(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("gpt2")
        _multiply(lm, "transformer.h.0.mlp.dropout")
        text = refusal(lm.model, lm.architecture)
        assert "the output of transformer.h.0.mlp is not that of mlp.c_proj" in text

    def test_logits_that_no_head_gives(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        """The model changes its states between the final norm and the head."""
        lm = tiny_factory("gpt2")
        lm.module("transformer").register_forward_hook(lambda _m, _a, out: _scaled(out))
        assert "the output head makes other logits" in refusal(lm.model, lm.architecture)

    def test_blocks_that_depend_on_their_place(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("gpt2")
        whole = lm.module("transformer.h")

        def by_place(module: nn.Module, args: Any, output: Any) -> Any:
            place = list(lm.module("transformer.h")).index(module)
            return output if place % 2 else _doubled(output)

        for block in whole:  # type: ignore[attr-defined]
            block.attn.register_forward_hook(by_place_of(block, by_place))
        assert "continuing at block 3 gives other states" in refusal(lm.model, lm.architecture)

    def test_a_wrong_row(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        text = refusal(tiny_factory("gpt2").model, replace(GPT2, attn="ln_1"))
        assert "the output of transformer.h.0 is not its input + ln_1 + mlp" in text

    def test_what_a_model_raises_is_one_line(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("gpt2")

        def fail(*args: Any) -> None:
            raise RuntimeError("first\nsecond")

        lm.block(1).register_forward_hook(fail)
        assert refusal(lm.model, lm.architecture).endswith("its own forward pass ends with RuntimeError (first)")


def _multiply(lm: LanguageModel, path: str) -> None:
    lm.module(path).register_forward_hook(lambda _m, _a, out: out * 1.5)


def _scaled(output: Any) -> Any:
    output.last_hidden_state = output.last_hidden_state * 2
    return output


def _doubled(output: Any) -> Any:
    return (output[0] * 2, *output[1:])


def by_place_of(block: nn.Module, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook of a block's part that is told the block."""
    return lambda _part, args, output: hook(block, args, output)


def assert_own_logits(lm: LanguageModel) -> None:
    ids = [5, 9, 260, 300, 41, 7]
    with torch.no_grad():
        own = lm.model(input_ids=torch.tensor([ids])).logits[0].float()
        ours = logits(lm, run_blocks(lm, make_inputs(lm, [Row.text(ids)])))[0]
        plain = lm.model.get_output_embeddings()(run_blocks(lm, make_inputs(lm, [Row.text(ids)])))[0]
    torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-4)
    assert (plain - own).abs().max() > 1e-3  # a control: the head alone gives something else


class TestLogits:
    def test_scaled(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        assert_own_logits(tiny_factory("cohere"))

    def test_capped(self) -> None:
        """Gemma 2 is refused for its norms; its head is right."""
        model = model_of("gemma2", {**LLAMA_LIKE, "head_dim": 8, "final_logit_softcapping": 3.0}).eval()
        tokenizer = make_tokenizer()
        tokenizer.pad_token = tokenizer.eos_token
        lm = LanguageModel(model=model, tokenizer=tokenizer, architecture=LLAMA, name="mine")
        assert_own_logits(lm)

    def test_gradients_pass(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("cohere")
        states = torch.randn(3, 32, requires_grad=True)
        (gradient,) = torch.autograd.grad(logits(lm, states)[:, 7].sum(), states)
        scale, row = lm.model.config.logit_scale, lm.parameter("lm_head.weight")[7]
        torch.testing.assert_close(gradient, (scale * row).expand(3, -1))

    def test_the_models_blocks_are_in_place_afterwards(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("cohere")
        body = lm.model.model
        logits(lm, torch.randn(2, 5, 32))
        assert lm.model.model is body

    def test_families_of_the_table_use_their_head_alone(self, tiny_lm: LanguageModel) -> None:
        """So that their numbers stay, bit for bit."""
        assert tiny_lm.plain_head


class TestWhatStays:
    def test_weights_digest_hooks_flags_and_random_state(self, tiny_lm: LanguageModel) -> None:
        def state() -> list[object]:
            hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny_lm.model.modules()]
            flags = [m.training for m in tiny_lm.model.modules()]
            grads = [(p.requires_grad, p.grad is None, p.dtype) for p in tiny_lm.model.parameters()]
            randoms = [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]
            names = [name for name, _ in tiny_lm.model.named_modules()]
            return [hooks, flags, grads, randoms, names, replace(tiny_lm).digest]

        before, weights = state(), weights_of(tiny_lm)
        check_numbers(tiny_lm)
        assert state() == before
        assert_weights(tiny_lm, weights)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_every_dtype_is_taken(self, tiny_factory: Callable[..., LanguageModel], dtype: torch.dtype) -> None:
        for family in ("gpt2", "llama", "gpt_neox"):
            assert tiny_factory(family, dtype=dtype).dtype == dtype

    @pytest.mark.parametrize(("layers", "positions"), [(1, 128), (2, 128), (3, 5), (4, 2), (4, 1)])
    def test_few_blocks_and_positions(self, layers: int, positions: int) -> None:
        settings: dict[str, object] = {"n_embd": 32, "n_layer": layers, "n_head": 4, "n_positions": positions}
        lm = prepare(model_of("gpt2", settings), make_tokenizer(), architecture=GPT2, name="mine")
        assert lm.n_layers == layers

    def test_a_model_of_zeros_and_one_that_overflows(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        zeros = tiny_factory("gpt2")
        with torch.no_grad():
            for parameter in zeros.model.parameters():
                parameter.zero_()
        ids = torch.tensor([[1, 2, 3]])
        with torch.no_grad():
            assert not zeros.model(input_ids=ids).logits.any()
        check_numbers(zeros)
        large = tiny_factory("gpt2", dtype=torch.float16)
        with torch.no_grad():
            large.parameter("transformer.h.1.mlp.c_proj.bias").fill_(6e4)
            large.parameter("transformer.h.2.mlp.c_proj.bias").fill_(6e4)
        with torch.no_grad():
            assert not large.model(input_ids=ids).logits.isfinite().all()
        check_numbers(large)

    def test_a_tokenizer_that_knows_no_word(self, tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check_architecture, "TEXT", "")
        tokens = check_architecture._token_ids(tiny_gpt2)
        assert len(set(tokens)) == check_architecture.LENGTH, "other tokens take the place of the text's"
        check_numbers(tiny_gpt2)
