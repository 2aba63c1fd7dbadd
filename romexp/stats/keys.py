"""Where a model's keys are read, and how wide they are."""

from __future__ import annotations

from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel


def key_module(lm: LanguageModel, layer: int) -> str:
    """The module whose inputs are the keys of a layer: the second matrix of its MLP."""
    return lm.architecture.mlp_out_name(layer)


def key_width(lm: LanguageModel, layer: int) -> int:
    """D, the number of entries of a key: the input width of the second MLP matrix."""
    return weight_in_out(lm, f"{key_module(lm, layer)}.weight").shape[0]


def largest_key_width(lm: LanguageModel) -> int:
    """The largest D of a model's layers."""
    return max(key_width(lm, layer) for layer in range(lm.n_layers))
