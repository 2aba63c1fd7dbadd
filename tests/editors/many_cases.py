"""What tests of the editors of many facts share: contexts in groups, and the editors with few passes on tiny models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from edit_cases import TEMPLATES, moment

from romexp.editors.many.alphaedit import AlphaEdit
from romexp.editors.many.emmet import Emmet
from romexp.editors.many.memit import Memit, Pmet
from romexp.lm.weight_delta import WeightDelta

GROUPS = [[TEMPLATES[0]], list(TEMPLATES[1:])]
SIZES = (1, 2)
THRESHOLD = float(torch.linalg.eigvalsh(moment().double()).median())
"""Half of the second moment's eigenvalues are below it."""

COMMON = {"context_templates": GROUPS, "v_num_grad_steps": 4, "clamp_norm_factor": 2.0}
MEMIT = Memit(layers=(1, 2), mom2_update_weight=2.0, **COMMON)  # type: ignore[arg-type]
PMET = Pmet(layers=(1, 2), **{**COMMON, "mom2_update_weight": 2.0})  # type: ignore[arg-type]
EMMET = Emmet(layers=(2,), mom2_update_weight=20.0, **COMMON)  # type: ignore[arg-type]
ALPHAEDIT = AlphaEdit(layers=(1, 2), nullspace_threshold=THRESHOLD, L2=0.5, **COMMON)  # type: ignore[arg-type]
EDITORS = (MEMIT, PMET, EMMET, ALPHAEDIT)


def dense(delta: WeightDelta) -> list[torch.Tensor]:
    """ΔW of each edited layer (in × out), in the order of the layers."""
    return [term.dense() for term in delta.terms.values()]


def distance(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The largest relative Frobenius distance over layers."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(one, other, strict=True))
