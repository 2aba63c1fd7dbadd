"""The interface of edit networks (MEND, KE): a network turns the factors of gradients into weight deltas, and the
deltas are differentiable in the network's parameters (docs/method.md §4.3).
"""

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
"""The names of the edited parameters, in order, with their shapes (in, out)."""


class EditNetwork(nn.Module, ABC):
    """The network of a learned editor. It holds no part of the language model.

    The mode (`train()` or `eval()`) matters, because MEND updates its normalization statistics in training mode.

    Attributes:
        kind: `mend` or `ke`.
        shapes: the names of the edited parameters with their shapes (in, out). MEND's learned step sizes have this
            order.
    """

    kind: ClassVar[str]
    shapes: dict[str, tuple[int, int]]

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes = {name: (int(n_in), int(n_out)) for name, (n_in, n_out) in shapes.items()}

    @property
    def edited(self) -> tuple[str, ...]:
        """Names of the edited parameters, whose factors the network needs (`edit_factors`)."""
        return tuple(self.shapes)

    @property
    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """JSON-ready keyword arguments of the constructor besides `shapes`."""

    @property
    def config(self) -> dict[str, Any]:
        """JSON-ready configuration, from which `romexp.editors.learned.checkpoint.build` makes an untrained network of
        the same form.
        """
        return {
            "kind": self.kind,
            "parameters": {name: list(shape) for name, shape in self.shapes.items()},
            "sizes": self.sizes,
        }

    @abstractmethod
    def forward(self, factors: EditFactors) -> list[WeightDelta]:
        """Compute one delta for each request.

        The requests do not affect each other, with one exception: MEND in training mode adds each request to its
        statistics. The terms are low-rank and keep their autograd graph, so that a loss under
        `romexp.lm.apply_delta.overlay` has gradients in the network's parameters.
        """

    def parameter_groups(self, *, lr: float, lr_lr: float) -> list[dict[str, Any]]:
        """Parameter groups, of which each gets its own Adam optimizer: `{"params": [...], "lr": float}`
        (docs/method.md §4.6).

        Args:
            lr: learning rate of all parameters.
            lr_lr: learning rate of a second Adam on MEND's learned step sizes; KE ignores it.
        """
        return [{"params": list(self.parameters()), "lr": lr}]


def shapes_of(lm: LanguageModel, parameters: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """The shapes (in, out) of weights of a model."""
    shapes: dict[str, tuple[int, int]] = {}
    for name in parameters:
        n_in, n_out = weight_in_out(lm, name).shape
        shapes[name] = (n_in, n_out)
    return shapes


def kept_rows(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The rows where the mask is True, in order: (requests × tokens × features) → (rows × features)."""
    return values[mask]


def by_request(rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The inverse of `kept_rows`, without the dropped tokens: (rows × features) → (requests × rank × features).

    `rank` is the largest number of kept tokens of a request. Requests with fewer are padded with zeros at the end.
    """
    position = mask.long().cumsum(dim=1) - 1
    rank = max(1, int(mask.sum(dim=1).max()))
    request = mask.nonzero()[:, 0]
    out = rows.new_zeros((mask.shape[0], rank, rows.shape[-1]))
    return out.index_put((request, position[mask]), rows)


N_LAYERS = 3
"""Number of edited layers that the authors use for all models."""


def default_parameters(lm: LanguageModel, n_layers: int = N_LAYERS) -> tuple[str, ...]:
    """Names of the weights to edit: both linear maps of the MLP in the last `n_layers` layers (docs/method.md §4.3).

    Of a gated MLP these are the up- and the down-projection. Layers are in ascending order. Within a layer the order is
    that of the authors' configurations, which their step sizes follow: the second map comes first if weights are stored
    as (in, out), as in GPT-2; else the first map comes first, as in GPT-J.

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
