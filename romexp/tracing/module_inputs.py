"""Reads, replaces and probes the inputs of linear maps: the outputs of attention heads, the activations of neurons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from romexp.errors import ConfigError
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.hooks import Change
from romexp.lm.model import LanguageModel


@contextmanager
def patch_inputs(lm: LanguageModel, changes: Mapping[str, Change]) -> Iterator[LanguageModel]:
    """Inside the context each named module gets `change(input)` (batch × tokens × features) in place of its input."""
    handles = []
    try:
        for path, change in changes.items():
            handles.append(lm.module(path).register_forward_pre_hook(_hook(change)))
        yield lm
    finally:
        for handle in handles:
            handle.remove()


def _hook(change: Change):  # type: ignore[no-untyped-def]
    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (change(args[0]), *args[1:])

    return hook


def attention_out_name(lm: LanguageModel, layer: int) -> str:
    """The path of the attention's last linear map, whose input is the outputs of all heads one after another.

    It is the one linear map of the attention module that is none of `attn_qkv`.

    Raises:
        ConfigError: the attention module has none or several.
    """
    attention, others = lm.architecture.attn_name(layer), lm.architecture.attn_qkv_names(layer)
    found = [
        f"{attention}.{name}"
        for name, module in lm.module(attention).named_modules()
        if getattr(module, "weight", None) is not None
        and module.weight.ndim == 2
        and f"{attention}.{name}" not in others
        and _writes_states(lm, f"{attention}.{name}")
    ]
    if len(found) != 1:
        raise ConfigError(
            f"tracer.nodes=heads: expected one linear map behind the heads of {attention!r}, found {len(found)}"
        )
    return found[0]


def _writes_states(lm: LanguageModel, path: str) -> bool:
    n_in, n_out = weight_in_out(lm, f"{path}.weight").shape
    return n_out == lm.hidden_size and n_in % n_heads(lm) == 0


def n_heads(lm: LanguageModel) -> int:
    """The number of attention heads of a layer (of queries, where keys and values are shared)."""
    return int(lm.model.config.num_attention_heads)


def replace_part(tokens: Sequence[slice], features: Sequence[slice], values: torch.Tensor) -> Change:
    """A change that replaces, in row r, the features `features[r]` of the tokens `tokens[r]` by those of `values`.

    Args:
        values: (rows × tokens × features), of the input's own size.
    """

    def change(old: torch.Tensor) -> torch.Tensor:
        new = old.clone()
        for row, (some_tokens, some_features) in enumerate(zip(tokens, features, strict=True)):
            new[row, some_tokens, some_features] = values[row, some_tokens, some_features].to(old)
        return new

    return change
