"""Measures edits that were made one by one, and are exported together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from romexp.errors import raise_first_error
from romexp.export.gather import FoundEdit
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import score
from romexp.lm.weight_delta import WeightDelta


@dataclass(frozen=True, kw_only=True)
class TargetProbabilities:
    """P of an edit's target after its prompt: exp(-NLL), with the NLL a mean over the target's tokens.

    Attributes:
        before: of the unedited model.
        alone: with this edit alone.
        together: with all exported edits.
    """

    before: float
    alone: float
    together: float


def measure_together(lm: LanguageModel, edits: Sequence[FoundEdit], together: WeightDelta) -> list[TargetProbabilities]:
    """P of each edit's target before, with this edit alone, and with all edits.

    Raises:
        RecordError: a prompt cannot be scored.
    """
    queries = [Query(prompt=edit.saved.request.text, targets=(edit.saved.request.target_new,)) for edit in edits]
    deltas = [delta for edit in edits for delta in (None, edit.saved.delta, together)]
    scores = raise_first_error(score(lm, [query for query in queries for _ in range(3)], deltas=deltas))
    values = iter([math.exp(-own.nll) for (own,) in scores])
    return [TargetProbabilities(before=next(values), alone=next(values), together=next(values)) for _ in edits]


@torch.no_grad()
def largest_rounding(lm: LanguageModel, delta: WeightDelta) -> float:
    """How much of an edit is lost to rounding where it is written into the weights: the largest
    ‖round(W + ΔW) − (W + ΔW)‖ / ‖ΔW‖ over the edited parameters. In float32 it is next to nothing."""
    shares = [0.0]
    for name, term in delta.terms.items():
        weight = weight_in_out(lm, name)
        change = term.dense().to(weight.device).double()
        exact = weight.double() + change
        lost = exact.to(weight.dtype).double() - exact
        shares.append(float(lost.norm() / change.norm().clamp_min(torch.finfo(torch.float64).tiny)))
    return max(shares)
