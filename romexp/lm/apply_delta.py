"""The two ways to see a model through a `WeightDelta` (the value itself is in `romexp.lm.weight_delta`).

`applied` writes one delta into the weights and takes it back; `overlay` runs many edited models in one batch, row i of
the batch through delta `rows[i]`, without touching a weight (DESIGN §1.1, §1.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from romexp.lm.architecture import stored_out_in
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, LowRank, Term, WeightDelta


@contextmanager
def applied(lm: LanguageModel, delta: WeightDelta) -> Iterator[LanguageModel]:
    """The model with `delta` added to its weights; on exit every weight is bit-equal to before, also after an error.

    The only code of the project that writes base weights.

    Raises:
        KeyError, ValueError: the delta names a parameter the model lacks or does not fit it; nothing is changed.
    """
    for name, term in delta.terms.items():
        check_fits(lm, name, term)
    saved = {name: lm.parameter(name).detach().clone() for name in delta.terms}
    try:
        with torch.no_grad():
            for name, term in delta.terms.items():
                parameter = lm.parameter(name)
                value = term.dense().to(parameter.device)
                # Out of place, so that a half-precision weight is rounded once, after the sum.
                parameter.copy_(parameter + (value.T if stored_transposed(lm, name) else value))
        yield lm
    finally:
        with torch.no_grad():
            for name, original in saved.items():
                lm.parameter(name).copy_(original)


def stored_transposed(lm: LanguageModel, parameter: str) -> bool:
    """True if the parameter is a matrix that its module stores as (out, in)."""
    module = lm.module(parameter.rpartition(".")[0])
    return lm.parameter(parameter).ndim == 2 and stored_out_in(lm.architecture, module)


def weight_in_out(lm: LanguageModel, parameter: str) -> torch.Tensor:
    """A view of a weight as (in × out), or of a bias as (out)."""
    value = lm.parameter(parameter).detach()
    return value.T if stored_transposed(lm, parameter) else value


def check_fits(lm: LanguageModel, name: str, term: Term) -> None:
    """Make sure that the model has the parameter and that the term has its shape.

    Raises:
        KeyError: no such parameter.
        ValueError: another shape; the message gives both as (in × out).
    """
    try:
        shape = tuple(weight_in_out(lm, name).shape)
    except AttributeError as error:
        raise KeyError(f"the model {lm.name!r} has no parameter {name!r}") from error
    if term.shape != shape:
        raise ValueError(f"{name}: a delta of shape {term.shape} for a parameter of {shape} (in × out)")


@contextmanager
def overlay(lm: LanguageModel, deltas: Sequence[WeightDelta], rows: Sequence[int]) -> Iterator[LanguageModel]:
    """Run row i of every batch through the model edited by `deltas[rows[i]]`; -1 is the unedited model.

    The base weights stay untouched: each edited module's output gets its rows' own term,
    y_i += (x_i left) rightᵀ for a low-rank one. Gradients flow into the deltas.

    Args:
        rows: one index a batch row; every forward inside the context must have exactly this batch size.

    Raises:
        KeyError: a delta names a parameter the model lacks.
        ValueError: an index out of range, a term of another shape than its parameter, a parameter that is no weight
            or bias of a linear map, or a forward with another batch size.
    """
    if rows and not -1 <= min(rows) <= max(rows) < len(deltas):
        raise ValueError(f"rows name deltas {min(rows)}…{max(rows)}, but there are {len(deltas)}")
    used = [deltas[row] for row in sorted(set(rows)) if row >= 0]
    names = dict.fromkeys(name for delta in used for name in delta.terms)
    handles = []
    try:
        for name in names:
            module = _linear(lm, name)
            for delta in used:
                if name in delta.terms:
                    check_fits(lm, name, delta.terms[name])
            groups = _stack(name, deltas, rows, lm.parameter(name))
            handles.append(module.register_forward_hook(_adder(groups, len(rows))))
        yield lm
    finally:
        for handle in handles:
            handle.remove()


def _linear(lm: LanguageModel, parameter: str) -> nn.Module:
    """The module whose output is input @ weight + bias, with `parameter` one of the two."""
    path, _, kind = parameter.rpartition(".")
    try:
        module, dimensions = lm.module(path), lm.parameter(parameter).ndim
    except AttributeError as error:
        raise KeyError(f"the model {lm.name!r} has no parameter {parameter!r}") from error
    if {"weight": 2, "bias": 1}.get(kind) != dimensions or isinstance(module, nn.Embedding):
        raise ValueError(f"{parameter}: only weights and biases of linear maps can be overlaid")
    return module


@dataclass(frozen=True, kw_only=True, eq=False)
class _LowRankRows:
    """Batch rows `index` (None: every row in order) with low-rank terms of one rank, stacked."""

    index: torch.Tensor | None
    left: torch.Tensor  # (rows × in × rank)
    right: torch.Tensor  # (rows × out × rank)

    def term(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.left) @ self.right.mT


@dataclass(frozen=True, kw_only=True, eq=False)
class _DenseRows:
    """Batch rows `index` that share one dense term: it is never copied per row."""

    index: torch.Tensor | None
    value: torch.Tensor  # (in × out), or (out) for a bias

    def term(self, x: torch.Tensor) -> torch.Tensor:
        if self.value.ndim == 1:
            return self.value.expand(*x.shape[:-1], -1)
        return x @ self.value


def _stack(
    name: str, deltas: Sequence[WeightDelta], rows: Sequence[int], like: nn.Parameter
) -> list[_LowRankRows | _DenseRows]:
    """The rows' terms of one parameter: low-rank ones stacked by rank, dense ones one group a delta."""
    groups: dict[tuple[str, int], list[int]] = {}
    for position, row in enumerate(rows):
        term = deltas[row].terms.get(name) if row >= 0 else None
        if term is not None:
            key = ("low", term.left.shape[1]) if isinstance(term, LowRank) else ("dense", row)
            groups.setdefault(key, []).append(position)

    def on_device(x: torch.Tensor) -> torch.Tensor:
        return x.to(device=like.device, dtype=like.dtype)

    stacked: list[_LowRankRows | _DenseRows] = []
    for positions in groups.values():
        index = None if len(positions) == len(rows) else torch.tensor(positions, device=like.device)
        first = deltas[rows[positions[0]]].terms[name]
        if isinstance(first, Dense):
            stacked.append(_DenseRows(index=index, value=on_device(first.value)))
            continue
        used = {row: i for i, row in enumerate(dict.fromkeys(rows[p] for p in positions))}
        where = torch.tensor([used[rows[p]] for p in positions], device=like.device)
        terms = [deltas[r].terms[name] for r in used]
        left, right = (on_device(torch.stack([getattr(t, side) for t in terms]))[where] for side in ("left", "right"))
        stacked.append(_LowRankRows(index=index, left=left, right=right))
    return stacked


def _adder(
    groups: Sequence[_LowRankRows | _DenseRows], n_rows: int
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        if x.ndim != 3 or x.shape[0] != n_rows:
            raise ValueError(f"overlay was made for (batch of {n_rows} × tokens × features), got {tuple(x.shape)}")
        for group in groups:
            term = group.term(x if group.index is None else x[group.index])
            output = output + term if group.index is None else output.index_add(0, group.index, term)
        return output

    return hook
