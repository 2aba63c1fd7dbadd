"""What the tests of forward passes share: models, texts, and what the model itself computes for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from conftest import FAMILIES
from torch import Tensor

from romexp.lm.forward import Row
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode

VARIANTS = (*FAMILIES, "llama with BOS", "gpt2 eager", "llama eager")
TEXTS = (
    "Steve Jobs was the founder of Apple",
    "Paris",
    "Anna and Bob play the violin; Édouard plays the piano in Zürich",
    "The mother tongue of",
)
CLOSE = {"atol": 5e-6, "rtol": 1e-5}
"""Measured 8e-7: norms and softmax of some families round to float32 whatever the weights are; others give 1e-14."""


def variant(name: str, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    """A tiny float64 model of one of `VARIANTS`."""
    family, *how = name.split(" ", 1)
    lm = tiny_factory(family, bos=how == ["with BOS"], dtype=torch.float64)
    if how == ["eager"]:
        lm.model.set_attn_implementation("eager")
    return lm


def rows_of(lm: LanguageModel, texts: Sequence[str] = TEXTS) -> list[Row]:
    return [Row.text(encoding.ids) for encoding in encode(lm.tokenizer, texts)]


def own_states(lm: LanguageModel, row: Row) -> list[Tensor]:
    """What the model itself computes for one row alone: the input of every block, then the normed final state."""
    out = lm.model.base_model(
        input_ids=torch.tensor([row.ids]), position_ids=torch.tensor([row.positions]), output_hidden_states=True
    )
    return [state[0] for state in out.hidden_states[:-1]] + [out.last_hidden_state[0]]


def assert_rows(states: Tensor, expected: Sequence[Tensor]) -> None:
    """Row by row equal, padding aside."""
    for state, own in zip(states, expected, strict=True):
        torch.testing.assert_close(state[: len(own)], own, **CLOSE)
