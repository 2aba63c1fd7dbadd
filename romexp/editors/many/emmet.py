"""EMMET: ROME's equality constraint for a batch of facts (docs/method.md §12.5; Gupta et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from romexp.bounds import check_bounds
from romexp.editors.base import Resources
from romexp.editors.many.base import SpreadEditor
from romexp.editors.many.normal_equation import NormalEquation


@dataclass(frozen=True, kw_only=True)
class Emmet(SpreadEditor):
    """EMMET. Hyper-parameters have the names of the authors' files; those of all methods are in `SpreadEditor`.

    With the ridge ε it is MEMIT of the same layers with the weight ε λ, which the diagnostics report. A batch of one
    request has no ridge, and is ROME's update for MEMIT's target value and keys.

    Attributes:
        mom2_update_weight: λ.
        emmet_lambda: ε, the ridge for a batch of at least two requests.
    """

    name: str = "EMMET"
    n_layers: int = 1
    earlier_keys: bool = False
    mom2_update_weight: float = 1000.0
    emmet_lambda: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, "editor", above_0=("mom2_update_weight",), from_0=("emmet_lambda",))

    def equation(self, layer: int, *, n_together: int, resources: Resources, device: torch.device) -> NormalEquation:
        """G = (λ C)⁻¹ and the ridge ε."""
        moment, weight = resources.second_moment(layer), self.mom2_update_weight
        ridge = self.emmet_lambda if n_together > 1 else 0.0
        return NormalEquation(
            apply=lambda keys: moment.solve(keys) / weight,
            ridge=ridge,
            diagnostics={"ridge": ridge, "memit_weight": ridge * weight},
        )
