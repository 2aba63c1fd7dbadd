"""The two ways to see a model through a `WeightDelta` (the value itself is in `romexp.lm.weight_delta`).

`applied` writes one delta into the weights and takes it back; `overlay` runs many edited models in one batch, row i of
the batch through `deltas[i]`, without touching a weight (docs/method.md §9.1, §9.2).
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

_EDITED = "_romexp_weights_hold_an_edit"
"""Attribute of a model whose weights `applied` has changed."""


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
    outer = getattr(lm.model, _EDITED, False)
    try:
        setattr(lm.model, _EDITED, outer or bool(delta.terms))
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
        setattr(lm.model, _EDITED, outer)


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
def overlay(lm: LanguageModel, deltas: Sequence[WeightDelta | None]) -> Iterator[LanguageModel]:
    """Run row i of every batch through the model edited by `deltas[i]`; None is the unedited model.

    The base weights stay untouched: each edited module's output gets its rows' own term,
    y_i += (x_i left) rightᵀ for a low-rank one. Gradients flow into the deltas. A delta that several rows name (the
    same object) is shared by them, never copied for each.

    Args:
        deltas: one a batch row; every forward inside the context must have exactly this batch size.

    Raises:
        KeyError: a delta names a parameter the model lacks.
        ValueError: a term of another shape than its parameter, a parameter that is no weight or bias of a linear map,
            or a forward with another batch size; or the weights hold an edit already, which would be added twice.
    """
    used = dict.fromkeys(delta for delta in deltas if delta is not None)
    names = dict.fromkeys(name for delta in used for name in delta.terms)
    if names and getattr(lm.model, _EDITED, False):
        raise ValueError(f"the weights of {lm.name!r} hold an edit already: leave `applied` before running another")
    handles = []
    try:
        for name in names:
            module = _linear(lm, name)
            for delta in used:
                if name in delta.terms:
                    check_fits(lm, name, delta.terms[name])
            terms = [None if delta is None else delta.terms.get(name) for delta in deltas]
            handles.append(module.register_forward_hook(_adder(_shared(terms, lm.parameter(name)), len(deltas))))
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
class _LowRankTerms:
    """Low-rank terms of one rank, each of which the same number of batch rows has.

    Attributes:
        rows: positions in the batch, those of the first term first; None: every row in order.
        left: (terms × in × rank).
        right: (terms × out × rank).
    """

    rows: torch.Tensor | None
    left: torch.Tensor
    right: torch.Tensor

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """What is added for x (rows × tokens × in): (rows × tokens × out)."""
        by_term = x.reshape(len(self.left), -1, x.shape[-1])  # the rows of a term below each other
        return ((by_term @ self.left) @ self.right.mT).reshape(*x.shape[:-1], -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _DenseTerm:
    """One dense term, (in × out), or (out) for a bias, and the batch rows that have it."""

    rows: torch.Tensor | None
    value: torch.Tensor

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """What is added for x (rows × tokens × in): (rows × tokens × out)."""
        if self.value.ndim == 1:
            return self.value.expand(*x.shape[:-1], -1)
        return x @ self.value


def _shared(terms: Sequence[Term | None], like: nn.Parameter) -> list[_LowRankTerms | _DenseTerm]:
    """The rows' terms of one parameter, each term once.

    Low-rank terms of one rank are stacked with those that as many rows have, so that one product serves them all.
    """
    rows_of: dict[Term, list[int]] = {}
    for row, term in enumerate(terms):
        if term is not None:
            rows_of.setdefault(term, []).append(row)

    def on_device(x: torch.Tensor) -> torch.Tensor:
        return x.to(device=like.device, dtype=like.dtype)

    def index(rows: Sequence[int]) -> torch.Tensor | None:
        return None if list(rows) == list(range(len(terms))) else torch.tensor(rows, device=like.device)

    found: list[_LowRankTerms | _DenseTerm] = []
    alike: dict[tuple[int, int], list[LowRank]] = {}
    for term, rows in rows_of.items():
        if isinstance(term, Dense):
            found.append(_DenseTerm(rows=index(rows), value=on_device(term.value)))
        else:
            alike.setdefault((term.left.shape[1], len(rows)), []).append(term)
    for group in alike.values():
        left, right = (torch.stack([on_device(getattr(term, side)) for term in group]) for side in ("left", "right"))
        rows = [row for term in group for row in rows_of[term]]
        found.append(_LowRankTerms(rows=index(rows), left=left, right=right))
    return found


def _adder(
    groups: Sequence[_LowRankTerms | _DenseTerm], n_rows: int
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        if x.ndim != 3 or x.shape[0] != n_rows:
            raise ValueError(f"overlay was made for (batch of {n_rows} × tokens × features), got {tuple(x.shape)}")
        for group in groups:
            added = group.of(x if group.rows is None else x[group.rows])
            output = output + added if group.rows is None else output.index_add(0, group.rows, added)
        return output

    return hook
