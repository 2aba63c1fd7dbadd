"""Which layer an editor works on."""

from __future__ import annotations

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel


def pick_layer(lm: LanguageModel, *, layer: int | str | None, fraction: float) -> int:
    """`layer`, or `fraction` of the depth where it is None (GPT-2 XL's 17 of 48 is 0.35).

    Raises:
        ConfigError: no such layer.
    """
    if isinstance(layer, str):  # `traced` is looked up by the experiment, before an editor is called
        raise ConfigError(f"editor.layer: {layer!r} is not a number of a layer, null or traced")
    chosen = round(fraction * lm.n_layers) if layer is None else layer
    if not 0 <= chosen < lm.n_layers:
        raise ConfigError(f"editor.layer: {chosen} is outside 0…{lm.n_layers - 1} of {lm.name!r}")
    return chosen
