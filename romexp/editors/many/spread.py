"""Writes target values into several layers, from below (docs/method.md §12.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from romexp.editors.many.normal_equation import NormalEquation, adjoints
from romexp.editors.many.readings import RequestTexts, UpwardReader
from romexp.editors.values.bucket import Place
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import LowRank, WeightDelta, total


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """What was written.

    Attributes:
        deltas: the edit of each group of requests, one low-rank term per layer.
        layers: the layers, ascending.
        keys: the keys of all requests by layer (requests × D), as they were read: with the layers below edited.
        residual_norms: for each layer the norm of each request's residual, before it is divided.
        diagnostics: JSON-ready numbers of the normal equations, each a list over layers.
    """

    deltas: tuple[WeightDelta, ...]
    layers: tuple[int, ...]
    keys: Mapping[int, torch.Tensor]
    residual_norms: tuple[torch.Tensor, ...]
    diagnostics: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Spreads the way to a target value over layers.

    Attributes:
        layers: the layers, ascending.
        place: whose target values they are: the outputs of the last layer's block, or of its MLP.
        equation: the normal equation of a layer.
        divisor: by what a residual is divided, for the number of layers left.
    """

    layers: tuple[int, ...]
    place: Place
    equation: Callable[[int], NormalEquation]
    divisor: Callable[[int], float]

    def __call__(
        self,
        lm: LanguageModel,
        requests: RequestTexts,
        values: torch.Tensor,
        groups: Sequence[Sequence[int]],
        *,
        before: WeightDelta,
        kept: Mapping[int, torch.Tensor],
    ) -> Written:
        """Edit each group of requests by itself. A layer is edited before the keys of the next one are read.

        Args:
            requests: the texts of all requests.
            values: the target value of each request (requests × d).
            groups: the indices of requests that are written together; every request is in one group.
            before: an edit that the model has already. It must be empty if there are several groups.
            kept: by layer, keys that must keep their values (n × D).

        Raises:
            ValueError: there are several groups and an edit before them.
        """
        if before.terms and len(groups) > 1:
            raise ValueError("edits of single requests cannot continue an earlier edit")
        reader = UpwardReader(requests, one_model=len(groups) == 1)
        deltas = [WeightDelta() for _ in groups]
        keys: dict[int, torch.Tensor] = {}
        norms: list[torch.Tensor] = []
        about: dict[str, list[Any]] = {}
        for i, layer in enumerate(self.layers):
            equation = self.equation(layer)
            keys[layer], states = self._read(lm, reader, layer, deltas, groups, before)
            residuals = values.to(states) - states
            norms.append(residuals.norm(dim=-1))
            residuals = residuals / self.divisor(len(self.layers) - i)
            found = adjoints(equation, keys[layer], groups, kept=kept.get(layer))
            name = f"{lm.architecture.mlp_out_name(layer)}.weight"
            deltas = [
                WeightDelta(terms={**delta.terms, name: low_rank(adjoint, residuals[list(group)])})
                for delta, adjoint, group in zip(deltas, found, groups, strict=True)
            ]
            for key, value in equation.diagnostics.items():
                about.setdefault(key, []).append(value)
        return Written(
            deltas=tuple(deltas), layers=self.layers, keys=keys, residual_norms=tuple(norms), diagnostics=about
        )

    def _read(
        self,
        lm: LanguageModel,
        reader: UpwardReader,
        layer: int,
        deltas: Sequence[WeightDelta],
        groups: Sequence[Sequence[int]],
        before: WeightDelta,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys at `layer` (requests × D) and states at the last layer (requests × d), with the layers below edited."""
        last, paths = self.layers[-1], lm.architecture
        module = paths.block_name(last) if self.place == "block" else paths.mlp_name(last)
        if len(groups) == 1:  # one edit for all: in the weights it costs nothing, whatever its rank
            with applied(lm, total([before, *deltas])):
                return reader.keys(lm, [layer])[layer], reader.states(lm, module, layer=last)
        of_request = {request: deltas[g] for g, group in enumerate(groups) for request in group}
        own = [of_request[request] for request in range(len(of_request))]
        keys = reader.keys(lm, [layer], deltas=own)[layer]
        return keys, reader.states(lm, module, layer=last, deltas=own)


def low_rank(adjoint: torch.Tensor, residuals: torch.Tensor) -> LowRank:
    """ΔW = A R (in × out), with A (D × B) and the residuals' rows (B × d), in float32.

    The columns of A get length 1, as u of ROME has, so that half precision can hold them (docs/method.md §9.2).
    """
    lengths = adjoint.norm(dim=0)
    unit = adjoint / lengths.clamp(min=torch.finfo(torch.float64).tiny)
    right = residuals.T.to(lengths) * lengths
    return LowRank(left=unit.to(residuals), right=right.to(residuals))
