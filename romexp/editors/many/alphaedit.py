"""AlphaEdit: edits within the null space of other keys (docs/method.md §12.6; Fang et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from romexp.bounds import check_bounds
from romexp.editors.base import Resources
from romexp.editors.many.base import SpreadEditor
from romexp.editors.many.normal_equation import NormalEquation
from romexp.editors.many.null_space import null_basis


@dataclass(frozen=True, kw_only=True)
class AlphaEdit(SpreadEditor):
    """AlphaEdit. Hyper-parameters have the names of the authors' files; those of all methods are in `SpreadEditor`.

    Target values and their spreading over layers are MEMIT's. An edit does not change what the weights answer to keys
    in the span of the second moment's large eigenvectors.

    Attributes:
        nullspace_threshold: eigenvectors of C with eigenvalues below this span the null space. It has the units of C,
            so it does not move from model to model; the space's dimension is in the diagnostics.
        L2: ridge. The paper has 1, the authors' files have 10.
        mom2_update_weight: it is in the authors' files, and has no effect.
    """

    name: str = "AlphaEdit"
    nullspace_threshold: float = 2e-2
    L2: float = 10.0
    mom2_update_weight: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, "editor", above_0=("nullspace_threshold", "L2"))

    def equation(self, layer: int, *, n_together: int, resources: Resources, device: torch.device) -> NormalEquation:
        """G = U₀ U₀ᵀ and the ridge L2.

        Raises:
            ConfigError: the null space has no dimension, or all.
        """
        basis = null_basis(
            resources.second_moment(layer),
            threshold=self.nullspace_threshold,
            cache_dir=resources.cache_dir,
            device=device,
        )

        def project(keys: torch.Tensor) -> torch.Tensor:
            own = basis.to(keys)
            return (keys @ own) @ own.T

        diagnostics = {"ridge": self.L2, "null_dimension": basis.shape[1], "key_width": basis.shape[0]}
        return NormalEquation(apply=project, ridge=self.L2, diagnostics=diagnostics)
