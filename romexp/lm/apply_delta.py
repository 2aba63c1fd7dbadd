"""Two ways to run a model with a `WeightDelta` (the class is in `romexp.lm.weight_delta`).

`applied` writes one delta into the weights and restores them on exit. `overlay` runs many edited models in one batch
and leaves the weights as they are: row i of the batch runs through the model edited by `deltas[i]`
(docs/method.md §9.1, §9.2).
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
"""Attribute that `applied` sets on a model, so that `overlay` can refuse to add an edit a second time."""


@contextmanager
def applied(lm: LanguageModel, delta: WeightDelta) -> Iterator[LanguageModel]:
    """Add `delta` to the model's weights inside the context.

    On exit, also after an error, every weight is restored bit for bit. This is the only code of the project that
    writes base weights.

    Raises:
        KeyError: the delta names a parameter that the model does not have. No weight is changed.
        ValueError: a term has another shape than its parameter. No weight is changed.
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
                # The sum is made out of place, so that a half-precision weight is rounded only once.
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
    """Check that the model has the parameter `name` and that `term` has its shape.

    Raises:
        KeyError: the model has no such parameter.
        ValueError: the shapes differ; the message gives both as (in × out).
    """
    try:
        shape = tuple(weight_in_out(lm, name).shape)
    except AttributeError as error:
        raise KeyError(f"the model {lm.name!r} has no parameter {name!r}") from error
    if term.shape != shape:
        raise ValueError(f"{name}: a delta of shape {term.shape} for a parameter of {shape} (in × out)")


@contextmanager
def overlay(lm: LanguageModel, deltas: Sequence[WeightDelta | None]) -> Iterator[LanguageModel]:
    """Run row i of every batch through the model edited by `deltas[i]` (docs/method.md §9.2).

    The base weights do not change. Instead, the output of each edited module is changed per row:
    y_i += (x_i left) rightᵀ for a low-rank term. Gradients flow into the deltas. If several rows use the same delta
    object, its tensors are shared, not copied for each row.

    Args:
        deltas: one per batch row; None stands for the unedited model. Every forward pass inside the context must have
            exactly this batch size.

    Raises:
        KeyError: a delta names a parameter that the model does not have.
        ValueError: a term has another shape than its parameter; a parameter is not the weight or bias of a linear map;
            a forward pass has another batch size; or the weights already hold an edit, which would be added twice.
    """
    used = dict.fromkeys(delta for delta in deltas if delta is not None)
    names = dict.fromkeys(name for delta in used for name in delta.terms)
    if names and getattr(lm.model, _EDITED, False):
        raise ValueError(f"the weights of {lm.name!r} hold an edit already: leave `applied` before running another")
    handles = []
    try:
        for name in names:
            module = _linear_module(lm, name)
            for delta in used:
                if name in delta.terms:
                    check_fits(lm, name, delta.terms[name])
            terms = [None if delta is None else delta.terms.get(name) for delta in deltas]
            groups = _group_terms(terms, lm.parameter(name))
            handles.append(module.register_forward_hook(_addition_hook(groups, len(deltas))))
        yield lm
    finally:
        for handle in handles:
            handle.remove()


def _linear_module(lm: LanguageModel, parameter: str) -> nn.Module:
    """The linear module whose weight or bias is `parameter`.

    Raises:
        KeyError: the model has no such parameter.
        ValueError: the parameter is not the weight or bias of a linear map.
    """
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
    """Low-rank terms of one parameter that have the same rank and are used by the same number of batch rows.

    Attributes:
        rows: batch positions of the rows: first those of the first term, then those of the second, and so on. None
            stands for all rows in order.
        left: (terms × in × rank).
        right: (terms × out × rank).
    """

    rows: torch.Tensor | None
    left: torch.Tensor
    right: torch.Tensor

    def output_change(self, x: torch.Tensor) -> torch.Tensor:
        """What to add to the module's output for its input x: (rows × tokens × in) → (rows × tokens × out)."""
        by_term = x.reshape(len(self.left), -1, x.shape[-1])  # terms × (rows of the term · tokens) × in
        return ((by_term @ self.left) @ self.right.mT).reshape(*x.shape[:-1], -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _DenseTerm:
    """One dense term, (in × out) for a weight or (out) for a bias, and the batch rows that use it (None: all rows)."""

    rows: torch.Tensor | None
    value: torch.Tensor

    def output_change(self, x: torch.Tensor) -> torch.Tensor:
        """What to add to the module's output for its input x: (rows × tokens × in) → (rows × tokens × out)."""
        if self.value.ndim == 1:
            return self.value.expand(*x.shape[:-1], -1)
        return x @ self.value


def _group_terms(terms: Sequence[Term | None], like: nn.Parameter) -> list[_LowRankTerms | _DenseTerm]:
    """Group the rows' terms of one parameter so that each different term appears once.

    Low-rank terms with the same rank and the same number of rows are stacked, so that one batched product computes
    them all.
    """
    rows_of: dict[Term, list[int]] = {}
    for row, term in enumerate(terms):
        if term is not None:
            rows_of.setdefault(term, []).append(row)

    def on_device(x: torch.Tensor) -> torch.Tensor:
        return x.to(device=like.device, dtype=like.dtype)

    def index(rows: Sequence[int]) -> torch.Tensor | None:
        return None if list(rows) == list(range(len(terms))) else torch.tensor(rows, device=like.device)

    groups: list[_LowRankTerms | _DenseTerm] = []
    low_rank_terms: dict[tuple[int, int], list[LowRank]] = {}
    for term, rows in rows_of.items():
        if isinstance(term, Dense):
            groups.append(_DenseTerm(rows=index(rows), value=on_device(term.value)))
        else:
            low_rank_terms.setdefault((term.left.shape[1], len(rows)), []).append(term)
    for group in low_rank_terms.values():
        left, right = (torch.stack([on_device(getattr(term, side)) for term in group]) for side in ("left", "right"))
        rows = [row for term in group for row in rows_of[term]]
        groups.append(_LowRankTerms(rows=index(rows), left=left, right=right))
    return groups


def _addition_hook(
    groups: Sequence[_LowRankTerms | _DenseTerm], n_rows: int
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        if x.ndim != 3 or x.shape[0] != n_rows:
            raise ValueError(f"overlay was made for (batch of {n_rows} × tokens × features), got {tuple(x.shape)}")
        for group in groups:
            added = group.output_change(x if group.rows is None else x[group.rows])
            output = output + added if group.rows is None else output.index_add(0, group.rows, added)
        return output

    return hook
