"""Logits of final states. Some families scale or cap what their output head gives; their own code does it here too."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

PROBE = 100.0
"""Size of the entries of a probing state: large enough that a cap on the logits shows."""


class _Finished(nn.Module):
    """Stands in for a model's blocks: whatever it is called with, it returns states that are computed already."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.hidden)  # type: ignore[arg-type]


def own_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """The logits that the model's own forward pass makes of states with the final norm applied.

    Args:
        hidden: (… × hidden size).

    Returns:
        (… × vocabulary), in the type that the model gives.
    """
    flat = hidden.reshape(1, -1, hidden.shape[-1])
    ids = torch.zeros(flat.shape[:2], dtype=torch.long, device=hidden.device)
    attribute = model.base_model_prefix
    blocks = getattr(model, attribute)
    try:
        setattr(model, attribute, _Finished(flat))
        scores: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        setattr(model, attribute, blocks)
    return scores.reshape(*hidden.shape[:-1], -1)


@torch.no_grad()
def has_plain_head(model: PreTrainedModel) -> bool:
    """True if the model's logits are what its output head gives, with nothing done to them afterwards."""
    head = model.get_output_embeddings()
    weight = next(head.parameters())
    width = weight.shape[-1]
    probe = PROBE * torch.arange(2 * width, device=weight.device, dtype=torch.float32).cos()
    hidden = probe.reshape(1, 2, width).to(weight.dtype)
    try:
        own = own_logits(model, hidden)
    except Exception:  # The family's forward pass goes about its blocks in another way. The check at loading compares.
        return True
    return torch.equal(own.float(), head(hidden).float())
