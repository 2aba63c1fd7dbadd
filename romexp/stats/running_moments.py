"""Mean and variance of rows that come in batches, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class RunningMoments:
    """Means and sums of squares of all rows so far, in float64 on the CPU. They do not depend on how the rows were cut
    into batches, but for rounding (Chan, Golub and LeVeque 1979).

    Attributes:
        count: number of rows.
        mean: mean of each column (columns).
        squares: sum of squared deviations from the mean, of each column (columns).
    """

    count: int
    mean: torch.Tensor
    squares: torch.Tensor

    @classmethod
    def empty(cls, width: int) -> RunningMoments:
        """Of no rows."""
        zeros = torch.zeros(width, dtype=torch.float64)
        return cls(count=0, mean=zeros, squares=zeros)

    def with_rows(self, rows: torch.Tensor) -> RunningMoments:
        """With further rows (rows × columns) added."""
        if not len(rows):
            return self
        new = rows.detach().to(device=self.mean.device, dtype=torch.float64)
        total, mean = self.count + len(new), new.mean(dim=0)
        shift = mean - self.mean
        squares = self.squares + (new - mean).square().sum(dim=0) + shift.square() * (self.count * len(new) / total)
        return RunningMoments(count=total, mean=self.mean + shift * (len(new) / total), squares=squares)

    def standardized(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows − mean) / standard deviation, in float64 (rows × columns). Columns that never varied become 0.

        Raises:
            ValueError: there were fewer than two rows, so that there is no standard deviation.
        """
        if self.count < 2:
            raise ValueError(f"{self.count} rows have no standard deviation")
        deviation = (self.squares / (self.count - 1)).sqrt()
        varies = deviation > 0
        centred = rows.detach().to(self.mean) - self.mean
        return torch.where(varies, centred / torch.where(varies, deviation, 1.0), 0.0)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The parts by name, for a file."""
        return {"count": torch.tensor(self.count), "mean": self.mean, "squares": self.squares}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> RunningMoments:
        """What `tensors` gave.

        Raises:
            KeyError: a part is missing.
        """
        return cls(count=int(tensors["count"]), mean=tensors["mean"], squares=tensors["squares"])
