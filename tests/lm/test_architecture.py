"""Every family's row names the parts that it says it names."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from romexp.errors import ConfigError
from romexp.lm.architecture import ARCHITECTURES, architecture_for, check, stored_out_in
from romexp.lm.model import LanguageModel

IDS = torch.tensor([[5, 9, 260, 300, 41, 7]])


def first(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def run(lm: LanguageModel, *, record: dict[str, str], add: tuple[str, torch.Tensor] | None = None) -> dict:
    """Outputs (or inputs, for keys that begin with `in:`) of modules, with `add` added at one module's output."""
    seen: dict[str, torch.Tensor] = {}
    handles = []
    if add is not None:
        path, delta = add
        # Registered first, so that the recording hooks below see the changed output.
        handles.append(
            lm.module(path).register_forward_hook(
                lambda _m, _a, out: (out[0] + delta, *out[1:]) if isinstance(out, tuple) else out + delta
            )
        )
    for key, path in record.items():

        def keep(_m: nn.Module, args: tuple, out: object, key: str = key) -> None:
            seen[key] = (args[0] if key.startswith("in:") else first(out)).clone()  # type: ignore[arg-type]

        handles.append(lm.module(path).register_forward_hook(keep))
    try:
        with torch.no_grad():
            seen["logits"] = lm.model(input_ids=IDS).logits
    finally:
        for handle in handles:
            handle.remove()
    return seen


def test_every_family_of_the_table_has_a_tiny_model(tiny_factory: Callable[..., LanguageModel]) -> None:
    for family, row in ARCHITECTURES.items():
        lm = tiny_factory(family)
        assert lm.architecture is row
        assert lm.model.config.model_type == family
        check(row, lm.model)


def test_embedding_and_final_norm_are_the_two_ends(tiny_lm: LanguageModel) -> None:
    row = tiny_lm.architecture
    seen = run(tiny_lm, record={"embedding": row.embedding, "norm": row.final_norm})
    table = tiny_lm.parameter(f"{row.embedding}.weight")
    assert torch.equal(seen["embedding"], table[IDS])
    head = tiny_lm.model.get_output_embeddings()
    torch.testing.assert_close(head(seen["norm"]), seen["logits"])


def test_mlp_in_and_mlp_out_bound_the_memory(tiny_lm: LanguageModel) -> None:
    """Keys are the input of `mlp_out`; the whole MLP's output is `mlp_out`'s output."""
    row, layer = tiny_lm.architecture, 2
    seen = run(
        tiny_lm,
        record={
            "in:mlp": row.mlp_name(layer),
            "mlp": row.mlp_name(layer),
            "in:up": row.mlp_in_name(layer),
            "up": row.mlp_in_name(layer),
            "in:out": row.mlp_out_name(layer),
            "out": row.mlp_out_name(layer),
        },
    )
    assert torch.equal(seen["in:mlp"], seen["in:up"])
    assert torch.equal(seen["mlp"], seen["out"])
    assert seen["up"].shape == seen["in:out"].shape == (1, IDS.shape[1], 64)


@pytest.mark.parametrize("part", ["mlp", "attn"])
def test_what_a_part_puts_out_is_added_to_the_residual_stream(tiny_lm: LanguageModel, part: str) -> None:
    """δ at the MLP's output is δ at the block's output: ROME optimizes δ there and relies on it."""
    row, layer = tiny_lm.architecture, 2
    path = row.mlp_name(layer) if part == "mlp" else row.attn_name(layer)
    record = {"block": row.block_name(layer), "mlp": row.mlp_name(layer)}
    delta = torch.randn(1, IDS.shape[1], tiny_lm.hidden_size)
    clean, changed = run(tiny_lm, record=record), run(tiny_lm, record=record, add=(path, delta))
    mlp_reaction = 0 if part == "mlp" else changed["mlp"] - clean["mlp"]  # a later MLP sees the attention's output
    torch.testing.assert_close(changed["block"] - clean["block"], delta + mlp_reaction, atol=1e-5, rtol=1e-5)
    assert (changed["logits"] - clean["logits"]).abs().max() > 1e-3


def test_attn_qkv_feed_the_attention_and_nothing_else(tiny_lm: LanguageModel) -> None:
    row, layer = tiny_lm.architecture, 1
    names = row.attn_qkv_names(layer)
    assert all(name.startswith(row.attn_name(layer) + ".") for name in names)
    outputs = [run(tiny_lm, record={"x": name})["x"].shape[-1] for name in names]
    config = tiny_lm.model.config
    key_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = tiny_lm.hidden_size // config.num_attention_heads
    assert sum(outputs) == head * (config.num_attention_heads + 2 * key_heads)


def test_weight_layout_is_the_modules_own(tiny_lm: LanguageModel) -> None:
    row = tiny_lm.architecture
    for layer in range(tiny_lm.n_layers):
        for name in (row.mlp_in_name(layer), row.mlp_out_name(layer), *row.attn_qkv_names(layer)):
            module = tiny_lm.module(name)
            assert isinstance(module, Conv1D if row.weight_layout == "in_out" else nn.Linear)
            assert stored_out_in(row, module) == isinstance(module, nn.Linear)
        shape = tuple(tiny_lm.parameter(f"{row.mlp_out_name(layer)}.weight").shape)
        assert shape == ((64, 32) if row.weight_layout == "in_out" else (32, 64))


def test_head_and_embedding_have_the_layout_of_their_type(tiny_lm: LanguageModel) -> None:
    head = tiny_lm.model.get_output_embeddings()
    assert stored_out_in(tiny_lm.architecture, head)
    assert not stored_out_in(tiny_lm.architecture, tiny_lm.module(tiny_lm.architecture.embedding))


def test_a_module_of_an_unknown_type_has_the_layout_of_the_row() -> None:
    assert not stored_out_in(ARCHITECTURES["gpt2"], nn.Module())
    assert stored_out_in(ARCHITECTURES["llama"], nn.Module())


def test_unknown_model_type_names_the_fields_to_set() -> None:
    with pytest.raises(ConfigError) as caught:
        architecture_for("opt")
    text = str(caught.value)
    assert "\n" not in text
    assert "'opt'" in text
    assert "model.architecture" in text
    for field in ("layers", "embedding", "final_norm", "mlp_in", "mlp_out", "attn_qkv", "weight_layout"):
        assert re.search(rf"\b{field}\b", text)
    for family in ARCHITECTURES:
        assert family in text


@pytest.mark.parametrize(
    ("field", "wrong", "expected"),
    [
        (
            "layers",
            "transformer.blocks",
            "model.architecture.layers: no module 'transformer.blocks' in GPT2LMHeadModel",
        ),
        ("embedding", "wte", "GPT2LMHeadModel has transformer, lm_head"),
        ("mlp_out", "mlp.fc_out", "transformer.h.0.mlp has c_fc, c_proj, act, dropout"),
        ("attn_qkv", ("attn.c_attn", "attn.q"), "model.architecture.attn_qkv[1]: no module 'transformer.h.0.attn.q'"),
        (
            "weight_layout",
            "out_in",
            "model.architecture.weight_layout: transformer.h.0.mlp.c_proj is a Conv1D, which stores in_out",
        ),
    ],
)
def test_a_wrong_row_is_told_with_its_field(tiny_gpt2: LanguageModel, field: str, wrong: object, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        check(replace(tiny_gpt2.architecture, **{field: wrong}), tiny_gpt2.model)
    assert "\n" not in str(caught.value)
