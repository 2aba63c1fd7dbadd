"""The network of MEND (Mitchell et al. 2022). It normalizes and transforms the factors of a gradient, and multiplies
them by learned step sizes (docs/method.md §4.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from romexp.editors.learned.base import EditNetwork, Shapes, by_request, kept_rows
from romexp.editors.learned.factors import EditFactors
from romexp.errors import DataError
from romexp.lm.weight_delta import LowRank, WeightDelta


class MendNetwork(EditNetwork):
    """The edit network of MEND (docs/method.md §4.4).

    ΔW_p = α_p Σ_t x̃_t δ̃_tᵀ, where (x̃_t, δ̃_t) = g(x̂_t, δ̂_t) and x̂_t, δ̂_t are the normalized factors. The rank is the
    number of tokens with a gradient. The sign is plus, as in the authors' code; training must find the direction.

    With initial weights g is the identity. Even then ΔW_p is not a gradient step, because the normalization subtracts
    the mean of each factor.

    In training mode each request is added to the statistics before it is normalized, as if the requests came one by
    one.

    Args:
        shapes: the names of the edited parameters with their shapes (in, out), in the order of the step sizes.
        rank: rank of the residual layers; at most their width in + out is used.
        n_hidden: number of residual layers minus one.
        edit_lr: initial value of each step size α.
        generator: random generator of the initial weights.
    """

    kind: ClassVar[str] = "mend"

    def __init__(
        self,
        shapes: Shapes,
        *,
        rank: int = 1920,
        n_hidden: int = 1,
        edit_lr: float = 1e-4,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(shapes)
        self.rank, self.n_hidden, self.edit_lr = rank, n_hidden, edit_lr
        self.edit_lrs = nn.Parameter(torch.full((len(self.shapes),), edit_lr))
        members: dict[tuple[int, int], list[str]] = {}
        for name, shape in self.shapes.items():
            members.setdefault(shape, []).append(name)
        self.modes = {name: names.index(name) for names in members.values() for name in names}
        self.transforms = nn.ModuleDict(
            {
                transform_key(shape): GradientTransform(
                    *shape, n_modes=len(names), rank=rank, n_hidden=n_hidden, generator=generator
                )
                for shape, names in members.items()
            }
        )

    @property
    def sizes(self) -> dict[str, Any]:
        return {"rank": self.rank, "n_hidden": self.n_hidden, "edit_lr": self.edit_lr}

    def parameter_groups(self, *, lr: float, lr_lr: float) -> list[dict[str, Any]]:
        """Two groups, for two Adam optimizers. The step sizes are in both groups (docs/method.md §4.6)."""
        return [*super().parameter_groups(lr=lr, lr_lr=lr_lr), {"params": [self.edit_lrs], "lr": lr_lr}]

    def transform(self, parameter: str) -> GradientTransform:
        """The transform of a parameter. Parameters of the same shape share one."""
        module = self.transforms[transform_key(self.shapes[parameter])]
        assert isinstance(module, GradientTransform)
        return module

    def reset_statistics(self) -> None:
        """Reset the normalization statistics, as the authors do at the first edit (docs/method.md §4.4)."""
        for name in self.edited:
            self.transform(name).reset()

    def forward(self, factors: EditFactors) -> list[WeightDelta]:
        """Compute one delta for each request, whose rank is the number of its kept tokens.

        Raises:
            DataError: the network is in evaluation mode and has no statistics.
        """
        normalized = self._normalized(factors)
        terms: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for lr, name in zip(self.edit_lrs, self.edited, strict=True):
            x, delta = self.transform(name)(*normalized[name], self.modes[name])
            mask = factors.masks[name]
            terms[name] = by_request(lr * x, mask).mT, by_request(delta, mask).mT
        return [
            WeightDelta(terms={name: LowRank(left=left[i], right=right[i]) for name, (left, right) in terms.items()})
            for i in range(len(factors))
        ]

    def _normalized(self, factors: EditFactors) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """The normalized kept rows (x̂, δ̂) of all requests, by parameter: (rows × in) and (rows × out)."""
        if not self.training:
            all_requests = slice(None)
            return {name: self.transform(name).normalize(*_rows(factors, name, all_requests)) for name in self.edited}
        parts: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in self.edited}
        for i in range(len(factors)):
            for name in self.edited:
                rows = _rows(factors, name, slice(i, i + 1))
                self.transform(name).observe(*rows)
                parts[name].append(self.transform(name).normalize(*rows))
        return {name: _joined(pairs) for name, pairs in parts.items()}


def transform_key(shape: tuple[int, int]) -> str:
    """The name, among the network's modules, of the transform for a shape."""
    return f"{shape[0]}x{shape[1]}"


def _rows(factors: EditFactors, name: str, requests: slice) -> tuple[torch.Tensor, torch.Tensor]:
    mask = factors.masks[name][requests]
    return kept_rows(factors.inputs[name][requests], mask), kept_rows(factors.gradients[name][requests], mask)


def _joined(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([x for x, _ in pairs]), torch.cat([delta for _, delta in pairs])


EPSILON = 1e-7
"""Added to the standard deviations by which factors are divided."""


class ResidualLayer(nn.Module):
    """x + max(0, s_m ⊙ (U V x + b) + t_m). Each mode m has its own scale s_m and shift t_m.

    The initial values U = 0, V ~ N(0, 1), b = 0, s = 1 and t = 0 make it the identity.
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
        """Apply the layer to rows (rows × width); the shape stays the same."""
        inner = (x @ self.v.T) @ self.u.T + self.bias
        # This is clamp and not relu, because the gradient of clamp at 0 is 1. With relu, U = 0 would get no gradient.
        return x + (inner * self.mode_scale[mode] + self.mode_shift[mode]).clamp(min=0)


class GradientTransform(nn.Module):
    """Normalizes the factors (x, δ) of each token and passes their concatenation through residual layers.

    All parameters of one shape share a transform, but each has its own mode. Means and standard deviations are taken
    over all rows seen in training mode, by Welford's algorithm. In evaluation mode they do not change.

    Attributes:
        count: number of rows seen.
        x_mean, delta_mean: means of x (in) and δ (out).
        x_squares, delta_squares: sums of squared deviations from these means.
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
        """Reset the statistics to those of no rows."""
        for buffer in self.buffers():
            buffer.zero_()

    @torch.no_grad()
    def observe(self, x: torch.Tensor, delta: torch.Tensor) -> None:
        """Add rows x (rows × in) and δ (rows × out) to the statistics. The result is that of adding them one by one."""
        n = len(x)
        if n == 0:
            return
        total = self.count + n
        for rows, mean, squares in ((x, self.x_mean, self.x_squares), (delta, self.delta_mean, self.delta_squares)):
            mean_of_rows = rows.mean(dim=0)
            shift = mean_of_rows - mean
            squares += (rows - mean_of_rows).square().sum(dim=0) + shift.square() * (self.count * n / total)
            mean += shift * (n / total)
        self.count += n

    def normalize(self, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Subtract the means from x (rows × in) and δ (rows × out), and divide by the standard deviations + 1e-7.

        Raises:
            DataError: the statistics are empty.
        """
        if len(x) and not self.count:
            raise DataError("this MEND network has no normalization statistics: it was never run in training mode")
        freedom = (self.count - 1).clamp(min=1).float()
        x_std, delta_std = (self.x_squares / freedom).sqrt(), (self.delta_squares / freedom).sqrt()
        return (x - self.x_mean) / (x_std + EPSILON), (delta - self.delta_mean) / (delta_std + EPSILON)

    def forward(self, x: torch.Tensor, delta: torch.Tensor, mode: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pass normalized rows through the residual layers: (x̂, δ̂) → (x̃, δ̃), (rows × in) and (rows × out)."""
        both = torch.cat([x, delta], dim=-1)
        for layer in self.layers:
            both = layer(both, mode)
        x, delta = both.split([self.n_in, self.n_out], dim=-1)
        return x, delta
