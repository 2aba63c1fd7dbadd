"""Which layers an editor of several layers writes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel


class _Layers(Protocol):
    @property
    def layers(self) -> Sequence[int] | None: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def layer_fraction(self) -> float: ...


def check_layers(layers: Sequence[int] | None) -> None:
    """Check a list of layers: at least one, ascending.

    Raises:
        ConfigError: it is not like this.
    """
    if layers is None:
        return
    if not layers or any(low >= high for low, high in itertools.pairwise(layers)):
        raise ConfigError(f"editor.layers: expected layers in ascending order, each once, not {list(layers)}")


def pick_layers(editor: _Layers, lm: LanguageModel) -> tuple[int, ...]:
    """`layers`, or `n_layers` layers (fewer at the bottom of the model) that end at round(`layer_fraction` · number of
    layers).

    Raises:
        ConfigError: the model has no such layer.
    """
    if editor.layers is None:
        last = min(round(editor.layer_fraction * lm.n_layers), lm.n_layers - 1)
        return tuple(range(max(0, last - editor.n_layers + 1), last + 1))
    if outside := [layer for layer in editor.layers if not 0 <= layer < lm.n_layers]:
        raise ConfigError(f"editor.layers: {outside[0]} is outside 0…{lm.n_layers - 1} of {lm.name!r}")
    return tuple(editor.layers)
