"""The module paths of each model family. All code that depends on the family is in this file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from romexp.errors import ConfigError

WeightLayout = Literal["in_out", "out_in"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Module paths of one model family. The paths of MLP and attention modules are relative to a block.

    Attributes:
        family: the `model_type` of the Hugging Face configuration.
        layers: path of the `ModuleList` of blocks.
        embedding: the token embedding, to whose output causal tracing adds noise (docs/method.md §2.1).
        final_norm: the normalization layer before the output head.
        mlp: the whole MLP of a block; its output is added to the residual stream.
        mlp_in: the MLP's first linear map (for gated MLPs the up-projection).
        mlp_out: the MLP's second linear map, which ROME edits (for gated MLPs the down-projection).
        attn: the whole attention module of a block; its output is added to the residual stream.
        attn_qkv: the linear maps that compute queries, keys and values: one fused map, or three separate ones.
        weight_layout: `in_out` if linear weights are stored as (in, out), as in GPT-2's Conv1D, else `out_in`.
    """

    family: str
    layers: str
    embedding: str
    final_norm: str
    mlp: str
    mlp_in: str
    mlp_out: str
    attn: str
    attn_qkv: tuple[str, ...]
    weight_layout: WeightLayout = "out_in"

    def block_name(self, layer: int) -> str:
        return f"{self.layers}.{layer}"

    def mlp_name(self, layer: int) -> str:
        return f"{self.layers}.{layer}.{self.mlp}"

    def mlp_in_name(self, layer: int) -> str:
        return f"{self.layers}.{layer}.{self.mlp_in}"

    def mlp_out_name(self, layer: int) -> str:
        return f"{self.layers}.{layer}.{self.mlp_out}"

    def attn_name(self, layer: int) -> str:
        return f"{self.layers}.{layer}.{self.attn}"

    def attn_qkv_names(self, layer: int) -> tuple[str, ...]:
        return tuple(f"{self.layers}.{layer}.{name}" for name in self.attn_qkv)


GPT2 = Architecture(
    family="gpt2",
    layers="transformer.h",
    embedding="transformer.wte",
    final_norm="transformer.ln_f",
    mlp="mlp",
    mlp_in="mlp.c_fc",
    mlp_out="mlp.c_proj",
    attn="attn",
    attn_qkv=("attn.c_attn",),
    weight_layout="in_out",
)
GPTJ = Architecture(
    family="gptj",
    layers="transformer.h",
    embedding="transformer.wte",
    final_norm="transformer.ln_f",
    mlp="mlp",
    mlp_in="mlp.fc_in",
    mlp_out="mlp.fc_out",
    attn="attn",
    attn_qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
)
GPT_NEOX = Architecture(
    family="gpt_neox",
    layers="gpt_neox.layers",
    embedding="gpt_neox.embed_in",
    final_norm="gpt_neox.final_layer_norm",
    mlp="mlp",
    mlp_in="mlp.dense_h_to_4h",
    mlp_out="mlp.dense_4h_to_h",
    attn="attention",
    attn_qkv=("attention.query_key_value",),
)
LLAMA = Architecture(
    family="llama",
    layers="model.layers",
    embedding="model.embed_tokens",
    final_norm="model.norm",
    mlp="mlp",
    mlp_in="mlp.up_proj",
    mlp_out="mlp.down_proj",
    attn="self_attn",
    attn_qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
)
PHI3 = replace(LLAMA, family="phi3", mlp_in="mlp.gate_up_proj", attn_qkv=("self_attn.qkv_proj",))
FALCON = Architecture(
    family="falcon",
    layers="transformer.h",
    embedding="transformer.word_embeddings",
    final_norm="transformer.ln_f",
    mlp="mlp",
    mlp_in="mlp.dense_h_to_4h",
    mlp_out="mlp.dense_4h_to_h",
    attn="self_attention",
    attn_qkv=("self_attention.query_key_value",),
)
ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": GPT2,
    "gptj": GPTJ,
    "gpt_neox": GPT_NEOX,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma": LLAMA,
    "phi3": PHI3,
    "olmo": LLAMA,
    "stablelm": LLAMA,
    "smollm3": LLAMA,
    "cohere": LLAMA,
    "falcon": FALCON,
}
"""The known families, by the `model_type` of the Hugging Face configuration."""

_NORMALIZES = "it normalizes what attention and MLP put out before adding it to the residual stream"
UNFIT = {
    "gemma2": _NORMALIZES,
    "gemma3": _NORMALIZES,
    "gemma3_text": _NORMALIZES,
    "olmo2": _NORMALIZES,
    "granite": "it multiplies what attention and MLP put out by residual_multiplier before adding it",
}
"""Families without a row, and why. So they are refused before their weights are downloaded. With a row given in
`model.architecture`, `romexp.lm.check_architecture` decides by numbers."""


def architecture_for(model_type: str) -> Architecture:
    """The module paths of a `model_type`.

    Raises:
        ConfigError: the type is unknown; the message names the fields to set in `model.architecture`. Or it is known
            not to fit; the message says why.
    """
    if model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    if model_type in UNFIT:
        raise ConfigError(
            f"model_type {model_type!r} cannot be used: {UNFIT[model_type]}, so an edit would do something else than "
            f"it was made for (usable: {', '.join(ARCHITECTURES)})"
        )
    fields = ", ".join(name for name in Architecture.__dataclass_fields__ if name != "family")
    raise ConfigError(
        f"no architecture row for model_type {model_type!r} (known: {', '.join(ARCHITECTURES)}). "
        f"Set model.architecture with _target_ romexp.lm.architecture.Architecture and its fields: {fields}"
    )


def check(architecture: Architecture, model: nn.Module) -> None:
    """Check that every path of `architecture` exists in the model, and that weights are stored in the stated layout.

    Raises:
        ConfigError: a path does not exist (the message names the field, the path, and the modules that do exist
            there), or the weights have the other layout.
    """
    for field, path in _paths(architecture).items():
        node: nn.Module = model
        for depth, part in enumerate(path.split(".")):
            children = dict(node.named_children())
            if part not in children:
                parent = ".".join(path.split(".")[:depth]) or type(model).__name__
                raise ConfigError(
                    f"model.architecture.{field}: no module {path!r} in {type(model).__name__}; "
                    f"{parent} has {', '.join(children) or 'no submodules'}"
                )
            node = children[part]
    memory = model.get_submodule(architecture.mlp_out_name(0))
    if isinstance(memory, nn.Linear | Conv1D) and (layout := _layout(memory)) != architecture.weight_layout:
        raise ConfigError(
            f"model.architecture.weight_layout: {architecture.mlp_out_name(0)} is a {type(memory).__name__}, "
            f"which stores {layout}, not {architecture.weight_layout}"
        )


def stored_out_in(architecture: Architecture, module: nn.Module) -> bool:
    """True if `module` stores its matrix as (out, in).

    The module's type decides where it is known, because one model can mix layouts: in GPT-2 the output head is a
    `Linear`, the other linear maps are `Conv1D`s. For other types `architecture.weight_layout` decides.
    """
    if isinstance(module, nn.Linear | Conv1D | nn.Embedding):
        return _layout(module) == "out_in"
    return architecture.weight_layout == "out_in"


def _layout(module: nn.Module) -> WeightLayout:
    return "out_in" if isinstance(module, nn.Linear) else "in_out"


def _paths(architecture: Architecture) -> dict[str, str]:
    paths = {"layers": architecture.layers, "embedding": architecture.embedding, "final_norm": architecture.final_norm}
    first = architecture.block_name(0)
    paths |= {field: f"{first}.{getattr(architecture, field)}" for field in ("mlp", "mlp_in", "mlp_out", "attn")}
    return paths | {f"attn_qkv[{i}]": f"{first}.{name}" for i, name in enumerate(architecture.attn_qkv)}
