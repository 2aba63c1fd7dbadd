"""Filters that hold an edit back, whatever editor made it: RECT and PRUNE (docs/method.md §12.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from typing import Literal, TypeVar

import torch

from romexp.editors.base import Edit
from romexp.errors import ConfigError, RecordError
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, LowRank, Term, WeightDelta

Filter = Literal["rect", "prune"]

RECT_SHARE = 0.4
"""Share of a weight's entries that RECT lets an edit change (`k_percent` 40 in AlphaEdit's code)."""

AnyEditor = TypeVar("AnyEditor")


def check_filter(value: object) -> None:
    """Check a field `filter` of an editor.

    Raises:
        ConfigError: it is no filter.
    """
    if value not in (None, "rect", "prune"):
        raise ConfigError(f"editor.filter: {value!r} is none of rect, prune, null")


def without_filter(editor: AnyEditor) -> AnyEditor:
    """The editor without its filter, for callers that filter the sum of several edits themselves."""
    if getattr(editor, "filter", None) is None or not is_dataclass(editor) or isinstance(editor, type):
        return editor
    return replace(editor, filter=None)


def filtered_edits(
    lm: LanguageModel, edits: Sequence[Edit | RecordError], chosen: str | None
) -> list[Edit | RecordError]:
    """Edits of single requests, each filtered by itself. Errors stay at their places."""
    return [
        replace(edit, delta=filtered(lm, edit.delta, chosen)) if chosen and isinstance(edit, Edit) else edit
        for edit in edits
    ]


@torch.no_grad()
def filtered(
    lm: LanguageModel, delta: WeightDelta, chosen: str | None, *, before: WeightDelta | None = None
) -> WeightDelta:
    """What a filter leaves of an edit ΔW of weights W.

    - `rect` keeps the share `RECT_SHARE` of entries with the largest |ΔW / W| and sets the others to 0.
    - `prune` makes each singular value σ of ΔW that is above the largest one of W, σ_max(W), smaller: it becomes
      σ_max(W) + ln σ − ln σ_max(W). Biases, which have no singular values, stay.

    The result replaces the edit. AlphaEdit's code adds PRUNE's result to weights that hold the whole edit already, so
    that it does not hold back anything.

    Args:
        lm: the model that holds the weights W; it does not change.
        before: an earlier edit, which is part of W but not of the model's weights.
    """
    if chosen is None:
        return delta
    terms: dict[str, Term] = {}
    for name, term in delta.terms.items():
        weight = weight_in_out(lm, name).float()
        if before is not None and name in before.terms:
            weight = weight + before.terms[name].dense().to(weight)
        terms[name] = _rect(term, weight) if chosen == "rect" else _prune(term, weight)
    return WeightDelta(terms=terms)


def _rect(term: Term, weight: torch.Tensor) -> Term:
    change = term.dense().to(weight)
    # An entry that is 0 before and after does not change; one that is 0 before only changes infinitely.
    relative = torch.where(change == 0, 0.0, (change / weight).abs())
    n_kept = round(RECT_SHARE * change.numel())
    kept = torch.zeros(change.numel(), dtype=torch.bool, device=change.device)
    kept[relative.flatten().topk(n_kept).indices] = True
    return Dense(value=change.where(kept.view_as(change), 0.0))


def _prune(term: Term, weight: torch.Tensor) -> Term:
    if weight.ndim == 1:
        return term
    bound = torch.linalg.matrix_norm(weight, ord=2).double().cpu()
    if isinstance(term, Dense):
        u, sigma, vh = torch.linalg.svd(term.value.double().cpu(), full_matrices=False)
        if not bool((sigma > bound).any()):
            return term
        return Dense(value=((u * _held_back(sigma, bound)) @ vh).to(term.value))
    # ΔW = L Rᵀ = Q₁ (S₁ S₂ᵀ) Q₂ᵀ, so the singular values are those of a small matrix.
    (q1, s1), (q2, s2) = (torch.linalg.qr(side.double().cpu()) for side in (term.left, term.right))
    u, sigma, vh = torch.linalg.svd(s1 @ s2.T, full_matrices=False)
    if not bool((sigma > bound).any()):
        return term
    return LowRank(left=((q1 @ u) * _held_back(sigma, bound)).to(term.left), right=(q2 @ vh.T).to(term.right))


def _held_back(sigma: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
    return torch.where(sigma > bound, bound + sigma.log() - bound.log(), sigma)
