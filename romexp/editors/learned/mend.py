"""MEND's network (Mitchell et al. 2022): gradient factors, normalized and transformed, times learned step sizes."""

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
    """ΔW_p = α_p Σ_t x̃_t δ̃_tᵀ, with (x̃, δ̃) = g(normalized (x, δ)); rank = number of tokens with a gradient
    (docs/method.md §4.4).

    At birth g is the identity, so ΔW_p = α_p Σ_t x̂_t δ̂_tᵀ of the normalized factors: no gradient step, since
    normalization shifts each factor, and with a plus sign, as the authors have it (training finds the sign).

    In training mode each request's rows enter the statistics before they are normalized, parameter after parameter,
    request after request, as if the requests came one by one.

    Args:
        shapes: the edited parameters with their (in, out); step sizes are in this order.
        rank: of the residual layers, at most their width in + out.
        n_hidden: residual layers minus one.
        edit_lr: α at birth.
        generator: for the initial weights.
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
        """Two Adams; the step sizes are in both (docs/method.md §4.6)."""
        return [*super().parameter_groups(lr=lr, lr_lr=lr_lr), {"params": [self.edit_lrs], "lr": lr_lr}]

    def transform(self, parameter: str) -> GradientTransform:
        """The transform of a parameter's shape."""
        module = self.transforms[transform_key(self.shapes[parameter])]
        assert isinstance(module, GradientTransform)
        return module

    def reset_statistics(self) -> None:
        """Forget the normalization statistics, as the authors' evaluation does at its first edit
        (docs/method.md §4.4).
        """
        for name in self.edited:
            self.transform(name).reset()

    def forward(self, factors: EditFactors) -> list[WeightDelta]:
        """One delta a request.

        Raises:
            DataError: in evaluation mode, without statistics.
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
        """The kept rows of every parameter, all requests one after another, normalized."""
        if not self.training:
            everything = slice(None)
            return {name: self.transform(name).normalize(*_rows(factors, name, everything)) for name in self.edited}
        parts: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in self.edited}
        for i in range(len(factors)):
            for name in self.edited:
                rows = _rows(factors, name, slice(i, i + 1))
                self.transform(name).observe(*rows)
                parts[name].append(self.transform(name).normalize(*rows))
        return {name: _joined(pairs) for name, pairs in parts.items()}


def transform_key(shape: tuple[int, int]) -> str:
    """The name of a shape's transform among the network's modules."""
    return f"{shape[0]}x{shape[1]}"


def _rows(factors: EditFactors, name: str, requests: slice) -> tuple[torch.Tensor, torch.Tensor]:
    mask = factors.masks[name][requests]
    return kept_rows(factors.inputs[name][requests], mask), kept_rows(factors.gradients[name][requests], mask)


def _joined(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([x for x, _ in pairs]), torch.cat([delta for _, delta in pairs])


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
