"""The sum of one layer's keys, from which its second moment is made (docs/method.md §3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from romexp import __version__
from romexp.errors import ConfigError
from romexp.stats.second_moment import SecondMoment, pack, unpack


def sum_dtype(name: str) -> torch.dtype:
    """The type of sums with this name.

    Raises:
        ConfigError: sums cannot have it.
    """
    dtypes: Mapping[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}
    if name not in dtypes:
        raise ConfigError(f"covariance.dtype: {name!r}, expected one of {', '.join(dtypes)}")
    return dtypes[name]


def versions() -> dict[str, str]:
    """The versions of the packages by which keys are measured."""
    return {"romexp": __version__, "torch": str(torch.__version__), "transformers": transformers.__version__}


class MomentFitter:
    """The sum Σ k kᵀ and the number of keys of one layer, to which keys are added batch by batch.

    Args:
        dtype: type of the sum. Keys are cast to it before they are multiplied, as in the authors' code
            (docs/method.md §3.3).
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.count = 0
        self.total: torch.Tensor | None = None

    def update(self, keys: torch.Tensor) -> None:
        """Add keys (n × D). The sum is on their device, or on the CPU if the device does not support the dtype."""
        device = keys.device
        if device.type == "mps" and self.dtype == torch.float64:  # MPS has no float64.
            device = torch.device("cpu")
        keys = keys.detach().to(device=device, dtype=self.dtype)
        if self.total is None:
            self.total = torch.zeros((keys.shape[1], keys.shape[1]), dtype=self.dtype, device=device)
        self.total = self.total.to(device).addmm_(keys.T, keys)
        self.count += keys.shape[0]

    def result(self, provenance: Mapping[str, Any]) -> SecondMoment:
        """C = Σ k kᵀ / n, exactly symmetric, in float32 on the CPU.

        Args:
            provenance: JSON-ready description of the model and the texts.

        Raises:
            ValueError: no keys were added.
        """
        if self.total is None or self.count == 0:
            raise ValueError("no keys were added, so there is no second moment")
        # Floating-point products are symmetric only up to rounding, so the upper triangle is used for both halves.
        upper = (self.total / self.count).triu()
        matrix = upper + upper.triu(1).T
        return SecondMoment(matrix=matrix.float().cpu(), count=self.count, provenance=dict(provenance))

    def state(self) -> dict[str, torch.Tensor]:
        """The count and the packed upper triangle, from which `restore` continues to bit-identical results."""
        total = torch.zeros((0, 0), dtype=self.dtype) if self.total is None else self.total
        return {"count": torch.tensor(self.count), "width": torch.tensor(total.shape[0]), "triangle": pack(total).cpu()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Set count and sum to those of a `state`.

        Raises:
            ValueError: the triangle has another size.
        """
        width = int(state["width"])
        self.count = int(state["count"])
        self.total = unpack(state["triangle"], width).to(self.dtype) if width else None
