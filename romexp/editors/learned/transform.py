"""MEND's parts: the low-rank residual network and the transform of gradient factors (SPEC §4.4)."""

from __future__ import annotations

import torch
from torch import nn

from romexp.errors import DataError

EPSILON = 1e-7
"""Added to standard deviations."""


class ResidualLayer(nn.Module):
    """x + max(0, s_m ⊙ (U V x + b) + t_m), with a scale s and a shift t of its own for each mode m.

    At birth U = 0, V ~ N(0, 1), b = 0, s = 1 and t = 0, which is the identity.
    """

    def __init__(self, width: int, *, rank: int, n_modes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        rank = min(rank, width)
        self.u = nn.Parameter(torch.zeros(width, rank))
        self.v = nn.Parameter(torch.randn(rank, width, generator=generator))
        self.bias = nn.Parameter(torch.zeros(width))
        self.mode_scale = nn.Parameter(torch.ones(n_modes, width))
        self.mode_shift = nn.Parameter(torch.zeros(n_modes, width))

    def forward(self, x: torch.Tensor, mode: int) -> torch.Tensor:
        """(rows × width) to the same shape."""
        inner = (x @ self.v.T) @ self.u.T + self.bias
        # clamp, not relu: its gradient at 0 is 1, without which U = 0 would never move.
        return x + (inner * self.mode_scale[mode] + self.mode_shift[mode]).clamp(min=0)


class GradientTransform(nn.Module):
    """Normalizes the factors (x, δ) of a token and sends them, side by side, through residual layers.

    One transform serves every parameter of a shape; each has a mode of its own. Means and standard deviations run over
    all rows ever seen in training mode (Welford); in evaluation mode they stay as they are.

    Buffers: `count`, and for x and δ the mean and the sum of squared deviations from it.
    """

    count: torch.Tensor
    x_mean: torch.Tensor
    x_squares: torch.Tensor
    delta_mean: torch.Tensor
    delta_squares: torch.Tensor

    def __init__(
        self, n_in: int, n_out: int, *, n_modes: int, rank: int, n_hidden: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.layers = nn.ModuleList(
            ResidualLayer(n_in + n_out, rank=rank, n_modes=n_modes, generator=generator) for _ in range(n_hidden + 1)
        )
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        for side, width in (("x", n_in), ("delta", n_out)):
            self.register_buffer(f"{side}_mean", torch.zeros(width))
            self.register_buffer(f"{side}_squares", torch.zeros(width))

    @torch.no_grad()
    def reset(self) -> None:
        """Forget the statistics."""
        for buffer in self.buffers():
            buffer.zero_()

    @torch.no_grad()
    def observe(self, x: torch.Tensor, delta: torch.Tensor) -> None:
        """Take rows (rows × in) and (rows × out) into the statistics; the same as one row after another."""
        n = len(x)
        if n == 0:
            return
        total = self.count + n
        for rows, mean, squares in ((x, self.x_mean, self.x_squares), (delta, self.delta_mean, self.delta_squares)):
            own = rows.mean(dim=0)
            shift = own - mean
            squares += (rows - own).square().sum(dim=0) + shift.square() * (self.count * n / total)
            mean += shift * (n / total)
        self.count += n

    def normalize(self, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Subtract means, divide by standard deviations + 1e-7.

        Raises:
            DataError: nothing was ever observed.
        """
        if len(x) and not self.count:
            raise DataError("this MEND network has no normalization statistics: it was never run in training mode")
        freedom = (self.count - 1).clamp(min=1).float()
        x_std, delta_std = (self.x_squares / freedom).sqrt(), (self.delta_squares / freedom).sqrt()
        return (x - self.x_mean) / (x_std + EPSILON), (delta - self.delta_mean) / (delta_std + EPSILON)

    def forward(self, x: torch.Tensor, delta: torch.Tensor, mode: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalized rows through the layers: (rows × in) and (rows × out), still in normalized scale."""
        both = torch.cat([x, delta], dim=-1)
        for layer in self.layers:
            both = layer(both, mode)
        x, delta = both.split([self.n_in, self.n_out], dim=-1)
        return x, delta
