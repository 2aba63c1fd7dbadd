"""What an edit network is: factors of a gradient in, weight deltas out, differentiable in its own parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from romexp.editors.learned.factors import EditFactors
from romexp.errors import ConfigError
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta

Shapes = Mapping[str, tuple[int, int]]
"""Edited parameters in order, with their (in, out)."""


class EditNetwork(nn.Module, ABC):
    """A trained editor's network (MEND, KE). It holds no part of the language model.

    `train()` and `eval()` matter: MEND updates its normalization statistics in training mode.

    Attributes:
        kind: `mend` or `ke`.
        shapes: the edited parameters, in the order of their learned step sizes, with their (in, out).
    """

    kind: ClassVar[str]
    shapes: dict[str, tuple[int, int]]

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes = {name: (int(n_in), int(n_out)) for name, (n_in, n_out) in shapes.items()}

    @property
    def edited(self) -> tuple[str, ...]:
        """Names of the edited parameters: what `edit_factors` must be asked for."""
        return tuple(self.shapes)

    @property
    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """Keyword arguments of the constructor besides `shapes`, JSON-ready."""

    @property
    def config(self) -> dict[str, Any]:
        """Everything but the weights: `romexp.editors.learned.checkpoint.build` makes the same network from it."""
        return {
            "kind": self.kind,
            "parameters": {name: list(shape) for name, shape in self.shapes.items()},
            "sizes": self.sizes,
        }

    @abstractmethod
    def forward(self, factors: EditFactors) -> list[WeightDelta]:
        """One delta a request, each as if it were alone (but for MEND's statistics in training mode).

        The terms are low-rank and keep their graph, so that a loss under `romexp.lm.apply_delta.overlay` reaches the
        network's parameters.
        """

    def parameter_groups(self, *, lr: float, lr_lr: float) -> list[dict[str, Any]]:
        """One dict a separate Adam: `{"params": [...], "lr": float}` (docs/method.md §4.6).

        Args:
            lr: of everything.
            lr_lr: of the second Adam, which steps MEND's learned step sizes once more; without meaning for KE.
        """
        return [{"params": list(self.parameters()), "lr": lr}]


def shapes_of(lm: LanguageModel, parameters: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """(in, out) of weights of a model."""
    shapes: dict[str, tuple[int, int]] = {}
    for name in parameters:
        n_in, n_out = weight_in_out(lm, name).shape
        shapes[name] = (n_in, n_out)
    return shapes


def kept_rows(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(requests × tokens × features) to the rows where the mask is True, in order: (rows × features)."""
    return values[mask]


def by_request(rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The other way: (rows × features) to (requests × rank × features), pushed to the front and padded with zeros.

    `rank` is the largest number of kept tokens of a request, so that one batch's terms stack.
    """
    position = mask.long().cumsum(dim=1) - 1
    rank = max(1, int(mask.sum(dim=1).max()))
    request = mask.nonzero()[:, 0]
    out = rows.new_zeros((mask.shape[0], rank, rows.shape[-1]))
    return out.index_put((request, position[mask]), rows)


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
