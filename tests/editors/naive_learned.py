"""MEND and KE by the letter (docs/method.md §4.4, §4.5): whole matrices, one request at a time, token after token."""

from __future__ import annotations

import torch
from torch.func import functional_call

from romexp.editors.learned.base import EditNetwork
from romexp.editors.learned.ke import KeNetwork
from romexp.editors.learned.mend import MendNetwork, transform_key
from romexp.editors.targets import EditText
from romexp.lm.apply_delta import stored_transposed
from romexp.lm.model import LanguageModel


def gradients(lm: LanguageModel, text: EditText, names: tuple[str, ...]) -> tuple[dict[str, torch.Tensor], float]:
    """Autograd's own gradient of the mean NLL over the target's tokens, as (in × out), and that loss."""
    weights = {name: lm.parameter(name).detach().clone().requires_grad_(True) for name in names}
    ids = torch.tensor([text.ids])
    log_p = functional_call(lm.model, weights, (ids,)).logits[0].log_softmax(dim=-1)
    target = range(text.target_start, len(text.ids))
    loss = -torch.stack([log_p[i - 1, text.ids[i]] for i in target]).mean()
    found = torch.autograd.grad(loss, list(weights.values()))
    return {name: g.T if stored_transposed(lm, name) else g for name, g in zip(names, found, strict=True)}, loss.item()


class RunningStatistics:
    """Mean and standard deviation of vectors, one after another, as Welford does it."""

    def __init__(self) -> None:
        self.k = 0

    def add(self, x: torch.Tensor) -> None:
        self.k += 1
        if self.k == 1:
            self.mean, self.s = x.clone(), torch.zeros_like(x)
            return
        mean = self.mean + (x - self.mean) / self.k
        self.s = self.s + (x - self.mean) * (x - mean)
        self.mean = mean

    def normalized(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / ((self.s / (self.k - 1)) ** 0.5 + 1e-7)


def transformed(network: MendNetwork, name: str, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """One normalized token through the residual layers."""
    z = torch.cat([x, delta])
    mode = [other for other in network.edited if network.shapes[other] == network.shapes[name]].index(name)
    for layer in network.transform(name).layers:
        inner = layer.mode_scale[mode] * (layer.u @ (layer.v @ z) + layer.bias) + layer.mode_shift[mode]
        z = z + torch.where(inner > 0, inner, 0)
    return z


def mend(
    network: MendNetwork,
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]],
    statistics: dict[str, tuple[RunningStatistics, RunningStatistics]],
    *,
    update: bool,
) -> dict[str, torch.Tensor]:
    """One request's ΔW as (in × out). `factors`: x (tokens × in) and δ (tokens × out) of every parameter."""
    out = {}
    for position, name in enumerate(network.edited):
        rows = [(x, d) for x, d in zip(*factors[name], strict=True) if x.any() and d.any()]
        of_x, of_delta = statistics[transform_key(network.shapes[name])]
        for x, delta in rows if update else []:
            of_x.add(x)
            of_delta.add(delta)
        total = torch.zeros(network.shapes[name])
        for x, delta in rows:
            z = transformed(network, name, of_x.normalized(x), of_delta.normalized(delta))
            total += torch.outer(z[: len(x)], z[len(x) :])
        out[name] = network.edit_lrs[position] * total
    return {name: value.detach() for name, value in out.items()}


def ke(network: KeNetwork, text: EditText, gradient: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One request's ΔW as (in × out), from its whole gradient."""
    part = network.condition
    _, (last, _) = part.lstm(part.embedding(torch.tensor([text.ids])))
    condition = torch.tanh(part.linear(torch.cat([last[0, 0], last[1, 0]])))
    out = {}
    for name, conditioner in zip(network.edited, network.conditioners, strict=True):
        n_in, n_out = network.shapes[name]
        values = _normed(conditioner.output, torch.tanh(_normed(conditioner.hidden, condition)))
        col_a, row_a, col_b, row_b, scale = values.split([n_out, n_in, n_out, n_in, 1])
        a = torch.outer(row_a.softmax(dim=0), col_a)
        b = torch.outer(row_b.softmax(dim=0), col_b)
        out[name] = (network.max_scale * scale.sigmoid() * (gradient[name] * a + b)).detach()
    return out


def _normed(linear: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    weight = torch.stack([g * v / v.norm() for g, v in zip(linear.scale, linear.direction, strict=True)])
    return weight @ x + linear.bias


def shake(network: EditNetwork, *, size: float = 0.3, seed: int = 0) -> None:
    """Move every weight of a network away from its birth, so that nothing is the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # The first layers sum over hundreds of entries: keep what comes out at the scale of what goes in.
            factor = 0.02 if name.endswith((".u", ".v")) else 1e-3 if name == "edit_lrs" else size
            parameter += factor * torch.randn(parameter.shape, generator=generator)
