"""What the editors are tried on: four requests of the tiny tokenizer's world, contexts, and a second moment."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from romexp.editors.base import Edit, Editor, Resources
from romexp.errors import RecordError
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import LowRank, WeightDelta
from romexp.stats.second_moment import SecondMoment

REQUESTS = (
    EditRequest(
        subject="Steve Jobs", prompt="{} was the founder of", target_new="Microsoft Office", target_true="Apple"
    ),
    EditRequest(
        subject="Danielle Darrieux",
        prompt="The mother tongue of {} is",
        target_new="English",
        target_true="French",
    ),
    EditRequest(subject="Anna", prompt="{} is the founder of the", target_new="Paris", target_true="bank"),
    EditRequest(
        subject="Édouard Zoë Müller",
        prompt="In the country, {}, who plays the",
        target_new="violin",
        target_true="piano",
    ),
)
"""Targets of one token (the third) and of many; the third's subject is one token, the first of its text."""

TEMPLATES = ("{}", "The phone. {}", "It is said that Anna. {}")


def moment(width: int = 64, *, seed: int = 1) -> torch.Tensor:
    """A symmetric positive matrix whose eigenvalues spread over a factor of about ten, so that u is not k."""
    keys = torch.randn(4 * width, width, generator=torch.Generator().manual_seed(seed))
    return keys.T @ keys / len(keys)


def resources(matrix: torch.Tensor | None = None, *, seed: int = 0) -> Resources:
    second_moment = SecondMoment(matrix=moment() if matrix is None else matrix, count=0)
    return Resources(second_moment=lambda layer: second_moment, seed=seed)


def no_moment(layer: int) -> SecondMoment:
    """For editors that must not ask for one."""
    raise AssertionError(f"asked for the second moment of layer {layer}")


def term(delta: WeightDelta) -> LowRank:
    """The one term of a rank-one edit."""
    ((_, only),) = delta.terms.items()
    assert isinstance(only, LowRank)
    return only


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """‖one − other‖ / ‖other‖."""
    return float((one - other).norm() / other.norm())


def furthest(edits: Sequence[Edit], others: Sequence[Edit]) -> float:
    """The largest relative distance of two lists of rank-one edits, over u and Λ'."""
    return max(
        relative(getattr(term(a.delta), side), getattr(term(b.delta), side))
        for a, b in zip(edits, others, strict=True)
        for side in ("left", "right")
    )


def beside_a_bad_request(
    lm: LanguageModel, editor: Editor, bad: EditRequest, *, resources: Resources
) -> tuple[RecordError, list[Edit], list[Edit]]:
    """Edit three good requests with a bad one among them, and again without it.

    Returns:
        The error that stands in the bad one's place, the good ones' edits beside it, and their edits without it.
    """
    first, second, error, last = editor(lm, [*REQUESTS[:2], bad, REQUESTS[3]], resources=resources)
    assert isinstance(error, RecordError)
    assert all(isinstance(edit, Edit) for edit in (first, second, last))
    return error, [first, second, last], editor(lm, [*REQUESTS[:2], REQUESTS[3]], resources=resources)  # type: ignore
