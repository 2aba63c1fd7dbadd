"""Which matrices a learned editor changes: the two of the MLP in the last layers (SPEC §4.3)."""

from __future__ import annotations

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel

N_LAYERS = 3
"""The authors' choice, for every model."""


def default_parameters(lm: LanguageModel, n_layers: int = N_LAYERS) -> tuple[str, ...]:
    """Weights of both linear maps of the MLP (for gated ones the up- and the down-projection), last `n_layers` layers.

    Layers ascend. Within a layer the order is that of the authors' configurations, which their step sizes follow:
    second map first where weights are stored (in, out), GPT-2, else first map first, GPT-J.

    Raises:
        ConfigError: the model has fewer layers.
    """
    if not 0 < n_layers <= lm.n_layers:
        raise ConfigError(f"editor.n_layers: expected 1…{lm.n_layers} ({lm.name!r}), not {n_layers}")
    architecture = lm.architecture
    names: list[str] = []
    for layer in range(lm.n_layers - n_layers, lm.n_layers):
        pair = [architecture.mlp_in_name(layer), architecture.mlp_out_name(layer)]
        names += reversed(pair) if architecture.weight_layout == "in_out" else pair
    return tuple(f"{name}.weight" for name in names)
