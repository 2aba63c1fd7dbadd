"""GPT-2's forward pass for training. It takes one attention mask for each layer, and computes attention in float32.

On a CPU, bfloat16 autocast makes matrix products fast, but the backward pass of PyTorch's fused attention slow.
`tests/minifact` checks that the results equal those of `GPT2LMHeadModel`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPT2LMHeadModel

from romexp.minifact.batches import Batch


def logits(model: GPT2LMHeadModel, ids: Tensor, masks: list[Tensor | None], positions: Tensor) -> Tensor:
    """Next-token logits.

    Args:
        model: a GPT-2 without dropout.
        ids: token ids (rows × length).
        masks: for each layer a bool tensor (rows × 1 × length × length), True where a query may read a key; or None for
            a plain causal mask.
        positions: position of each token (rows × length).

    Returns:
        logits (rows × length × vocabulary).
    """
    body = model.transformer
    hidden = body.wte(ids) + body.wpe(positions)
    blocks: list[Any] = list(body.h)
    for block, mask in zip(blocks, masks, strict=True):
        hidden = hidden + _attention(block.attn, block.ln_1(hidden), mask)
        hidden = hidden + block.mlp(block.ln_2(hidden))
    return model.lm_head(body.ln_f(hidden))


def _attention(attention: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
    rows, length, width = hidden.shape
    states = attention.c_attn(hidden).view(rows, length, 3, attention.num_heads, attention.head_dim)
    with torch.autocast(hidden.device.type, enabled=False):
        query, key, value = (part.float() for part in states.permute(2, 0, 3, 1, 4))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
    return attention.c_proj(mixed.transpose(1, 2).reshape(rows, length, width))


def bottleneck_masks(batch: Batch, *, layers: int, read_layer: int, bound: Tensor) -> list[Tensor | None]:
    """Attention masks with a bottleneck: tokens after a name can read only the name's last token.

    Tokens after a name can read the name's other tokens in no layer, and its last token only from layer `read_layer`
    on. So the model must combine the name's words at its last token, and look its facts up there in the layers below.

    Args:
        batch: packed rows.
        layers: number of layers of the model.
        read_layer: first layer in which tokens after a name may read its last token.
        bound: bool (rows): whether a row has the bottleneck. The other rows have a plain causal mask.

    Returns:
        for each layer a bool tensor (rows × 1 × length × length), True where a query may read a key.
    """
    length = batch.ids.shape[1]
    index = torch.arange(length)
    causal = index[:, None] >= index[None, :]
    late = _visible(batch.inner_until, index, bound) & causal
    early = _visible(batch.name_until, index, bound) & causal
    return [(early if layer < read_layer else late)[:, None] for layer in range(layers)]


def _visible(until: Tensor, index: Tensor, bound: Tensor) -> Tensor:
    """(rows × queries × keys): True where the query is before `until` of the key, or the row has no bottleneck."""
    before = index[None, :, None] < until[:, None, :]
    return before | ~bound[:, None, None]
