"""Running sums of k kᵀ: the mutable half of a second moment. `SecondMoment` is its frozen result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from romexp.stats.second_moment import SecondMoment
from romexp.stats.triangle import pack, unpack


class MomentFitter:
    """Σ k kᵀ and the number of keys of one layer, fed batch by batch.

    Args:
        dtype: type of the sum. Keys are cast to it before they are multiplied, as the reference does (SPEC §3.3).
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.count = 0
        self.total: torch.Tensor | None = None

    def update(self, keys: torch.Tensor) -> None:
        """Add keys (n × D). The sum lives on their device, or on the CPU if the device lacks the dtype."""
        device = keys.device
        if device.type == "mps" and self.dtype == torch.float64:  # Metal has no float64
            device = torch.device("cpu")
        keys = keys.detach().to(device=device, dtype=self.dtype)
        if self.total is None:
            self.total = torch.zeros((keys.shape[1], keys.shape[1]), dtype=self.dtype, device=device)
        self.total = self.total.to(device).addmm_(keys.T, keys)
        self.count += keys.shape[0]

    def result(self, provenance: Mapping[str, Any]) -> SecondMoment:
        """C = Σ k kᵀ / n, exactly symmetric, float32 on the CPU.

        Raises:
            ValueError: nothing was fed.
        """
        if self.total is None or self.count == 0:
            raise ValueError("no keys to take a second moment of")
        # A product of floats is symmetric only up to rounding; the upper triangle is taken for both halves.
        upper = (self.total / self.count).triu()
        matrix = upper + upper.triu(1).T
        return SecondMoment(matrix=matrix.float().cpu(), count=self.count, provenance=dict(provenance))

    def state(self) -> dict[str, torch.Tensor]:
        """What `restore` needs to go on to the same result, bit for bit: the count and the packed upper triangle."""
        total = torch.zeros((0, 0), dtype=self.dtype) if self.total is None else self.total
        return {"count": torch.tensor(self.count), "width": torch.tensor(total.shape[0]), "triangle": pack(total).cpu()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go back to a `state`."""
        width = int(state["width"])
        self.count = int(state["count"])
        self.total = unpack(state["triangle"], width).to(self.dtype) if width else None
