"""MEMIT and PMET: many facts by one edit of several MLPs, held back by the second moment of other keys
(docs/method.md §12.3, §12.4; Meng et al. 2023, Li et al. 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from romexp.bounds import check_bounds
from romexp.editors.base import Resources
from romexp.editors.many.base import SpreadEditor
from romexp.editors.many.normal_equation import NormalEquation
from romexp.editors.values.bucket import Place
from romexp.editors.values.optimize import ValueSettings


@dataclass(frozen=True, kw_only=True)
class Memit(SpreadEditor):
    """MEMIT. Hyper-parameters have the names of the authors' files; those of all methods are in `SpreadEditor`.

    The target value is a state of the residual stream behind the last layer. Each layer takes an equal share of the
    way that is left.

    Attributes:
        mom2_update_weight: λ, how much the second moment of other keys counts against the batch's keys.
        earlier_keys: in a sequence, keep the values of earlier batches' keys too. The authors' code for sequences does
            not, although the equation that it is named for has them; false does as it does.
    """

    name: str = "MEMIT"
    mom2_update_weight: float = 20000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, "editor", above_0=("mom2_update_weight",))

    def equation(self, layer: int, *, n_together: int, resources: Resources, device: torch.device) -> NormalEquation:
        """G = C⁻¹ and the ridge λ."""
        moment = resources.second_moment(layer)
        weight = self.mom2_update_weight
        return NormalEquation(apply=moment.solve, ridge=weight, diagnostics={"ridge": weight})


@dataclass(frozen=True, kw_only=True)
class Pmet(Memit):
    """PMET: as MEMIT, with target values of the MLP's output, which are optimized together with a change of the
    attention's output that is then dropped; each layer takes the square root of MEMIT's share.

    Attributes:
        nll_loss_factor: factor of the NLL in the loss.
        said_nll_factor: further factor of the NLL in a pass that follows one in which the target was the most likely
            answer in every context.
        said_kl_threshold: after such a pass a request is finished if its KL term is at most this.
    """

    name: str = "PMET"
    mom2_update_weight: float = 6000.0
    v_num_grad_steps: int = 30
    v_lr: float = 0.2
    kl_factor: float = 1.0
    earlier_keys: bool = False
    nll_loss_factor: float = 1.0
    said_nll_factor: float = 0.1
    said_kl_threshold: float = 0.01
    _place: ClassVar[Place] = "mlp_and_attention"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, "editor", from_0=("nll_loss_factor", "said_nll_factor", "said_kl_threshold"))

    def divisor(self, n_left: int) -> float:
        return math.sqrt(n_left)

    def value_settings(self) -> ValueSettings:
        return replace(
            super().value_settings(),
            nll_factor=self.nll_loss_factor,
            said_nll_factor=self.said_nll_factor,
            said_kl_threshold=self.said_kl_threshold,
        )
