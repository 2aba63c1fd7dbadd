"""Writes a tiny GGUF file, as llama.cpp's converter does for a Llama."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from romexp.lm.model import LanguageModel

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    """The name in a GGUF file of one of Llama's parameters."""
    top = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in top:
        return top[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order of llama.cpp's rotary embedding, which pairs neighbouring entries."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, shape[1]).swapaxes(1, 2).reshape(shape)


def write_gguf(lm: LanguageModel, path: Path, *, quantized: str | None = None, family: str = "llama") -> Path:
    """Write a Llama to a file.

    Args:
        quantized: type of the matrices in the blocks, such as `Q8_0`; None writes all weights in float32.
    """
    import gguf

    config = lm.model.config
    writer = gguf.GGUFWriter(path, family)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, lm)
    for name, tensor in lm.model.state_dict().items():
        value = tensor.detach().to(torch.float32).numpy()
        if "q_proj" in name:
            value = permuted(value, config.num_attention_heads)
        if "k_proj" in name:
            value = permuted(value, config.num_key_value_heads)
        if quantized and "layers" in name and value.ndim == 2:
            kind = gguf.GGMLQuantizationType[quantized]
            writer.add_tensor(gguf_name(name), gguf.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: object, lm: LanguageModel) -> None:
    inner = json.loads(lm.tokenizer.backend_tokenizer.to_str())
    vocabulary = sorted(inner["model"]["vocab"], key=inner["model"]["vocab"].get)
    special = {token["content"] for token in inner["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("gpt2")  # type: ignore[attr-defined]
    writer.add_token_list(vocabulary)  # type: ignore[attr-defined]
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])  # type: ignore[attr-defined]
    writer.add_token_merges([" ".join(pair) for pair in inner["model"]["merges"]])  # type: ignore[attr-defined]
    writer.add_eos_token_id(lm.tokenizer.eos_token_id)  # type: ignore[attr-defined]
    writer.add_bos_token_id(lm.tokenizer.eos_token_id)  # type: ignore[attr-defined]
