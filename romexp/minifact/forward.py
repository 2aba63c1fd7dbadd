"""GPT-2's forward pass for training: same function, with one attention mask a layer and attention in float32.

Under bfloat16 autocast on a CPU the products are fast but PyTorch's fused attention has a slow backward pass, so
attention alone runs in float32. `tests/minifact` holds this pass equal to `GPT2LMHeadModel`'s.
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
        masks: one a layer: True where a query may read a key, (rows × 1 × length × length), or None for plain causal.
        positions: position of each token (rows × length).

    Returns:
        (rows × length × vocabulary).
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
    """Attention masks under which what follows a name learns of it only from the name's last token.

    In all layers tokens after a name cannot read the name's other tokens; below `read_layer` they cannot read its
    last token either. So the name's parts must be combined, and looked up early, at its last token.

    Args:
        batch: packed rows.
        layers: number of layers of the model.
        read_layer: first layer in which a name's last token may be read from later tokens.
        bound: whether the bottleneck holds in a row, bool (rows); elsewhere attention is plain causal.

    Returns:
        one mask a layer (rows × 1 × length × length).
    """
    length = batch.ids.shape[1]
    index = torch.arange(length)
    causal = index[:, None] >= index[None, :]
    late = _hide(batch.inner_until, index, bound) & causal
    early = _hide(batch.name_until, index, bound) & causal
    return [(early if layer < read_layer else late)[:, None] for layer in range(layers)]


def _hide(until: Tensor, index: Tensor, bound: Tensor) -> Tensor:
    visible = index[None, :, None] < until[:, None, :]
    return visible | ~bound[:, None, None]
