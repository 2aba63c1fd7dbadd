"""The normal equation that ROME, EMMET, MEMIT, PMET and AlphaEdit have in common (docs/method.md §12.3).

Let K (D × B) hold the keys of a batch and K̃ (D × n) these keys followed by those that must keep their values. With a
symmetric G (D × D) and a ridge μ, the update of a weight (in × out) for residuals R (d × B) is

    ΔW = A Rᵀ,  A = first B columns of G K̃ (μ I + K̃ᵀ G K̃)⁻¹.

| method | G | μ |
|---|---|---|
| MEMIT, PMET | C⁻¹ | λ |
| EMMET | (λ C)⁻¹ | ε; 0 for a single key |
| ROME's direction | C⁻¹ | 0, a single key |
| AlphaEdit | U₀ U₀ᵀ | L2 |

For G = C⁻¹ this is A = (λ C + K̃ K̃ᵀ)⁻¹ K, the form in the papers. The system that is solved here is only n × n.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from romexp.stats.second_moment import float64_device

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NormalEquation:
    """G and μ of one layer.

    Attributes:
        apply: G k for each row k, (n × D) → (n × D), in float64.
        ridge: μ.
        diagnostics: JSON-ready numbers of the layer, such as the dimension of a null space.
    """

    apply: Callable[[torch.Tensor], torch.Tensor]
    ridge: float
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


def adjoints(
    equation: NormalEquation,
    keys: torch.Tensor,
    groups: Sequence[Sequence[int]],
    *,
    kept: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """A for each group of keys that are written together (docs/method.md §12.3).

    Args:
        keys: all keys (requests × D).
        groups: the rows of `keys` in each group.
        kept: keys that must keep their values (n × D), in every group; None if there are none.

    Returns:
        For each group A (D × keys of the group), in float64.
    """
    device = float64_device(keys.device)
    rows = keys.detach().to(device=device, dtype=torch.float64)
    if kept is not None:
        rows = torch.cat([rows, kept.to(rows)])
    images = equation.apply(rows)
    also = list(range(len(keys), len(rows)))
    return [_adjoint(rows, images, [*group, *also], ridge=equation.ridge)[:, : len(group)] for group in groups]


def _adjoint(rows: torch.Tensor, images: torch.Tensor, chosen: Sequence[int], *, ridge: float) -> torch.Tensor:
    """G K̃ (μ I + K̃ᵀ G K̃)⁻¹ (D × n), where K̃ᵀ and (G K̃)ᵀ are the chosen rows of the two tensors."""
    index = torch.tensor(list(chosen), device=rows.device)
    image = images[index]
    gram = rows[index] @ image.T
    system = (gram + gram.T) / 2
    system.diagonal().add_(ridge)
    lower, failed = torch.linalg.cholesky_ex(system)
    # Where keys depend on each other, rounding decides whether there is a factor, and then its last pivot is noise.
    noise = len(system) * torch.finfo(system.dtype).eps * system.diagonal().max()
    if not int(failed) and bool(lower.diagonal().min() ** 2 > noise):
        return torch.cholesky_solve(image, lower).T
    _log.warning("keys of one batch depend on each other; the smallest of all solutions is taken (a ridge avoids it)")
    return (torch.linalg.pinv(system, hermitian=True) @ image).T


def compress(keys: torch.Tensor) -> torch.Tensor:
    """At most D rows with the same KᵀK as the given keys (n × D), in their type. Up to D keys are returned as they are.

    A sequence of edits needs no more than that of its earlier keys.
    """
    if keys.shape[0] <= keys.shape[1]:
        return keys
    wide = keys.to(device=float64_device(keys.device), dtype=torch.float64)
    return torch.linalg.qr(wide, mode="r").R.to(keys)
