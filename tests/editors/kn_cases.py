"""Settings of Knowledge Neurons, and what its edits say."""

from __future__ import annotations

import torch
from edit_cases import no_moment

from romexp.editors.base import Edit, Resources
from romexp.editors.kn.editor import KnowledgeNeurons

KN = KnowledgeNeurons(steps=4)


RESOURCES = Resources(second_moment=no_moment)


CONTEXTS = ("{}", "The phone. {}", "It is said that Anna. {}", "In the north. {}")


def neurons(edit: Edit) -> set[tuple[str, int]]:
    """(parameter, row) of every chosen neuron."""
    return {
        (name, int(row))
        for name, term in edit.delta.terms.items()
        for row in term.left[:, 0].nonzero()[:, 0]  # type: ignore[union-attr]
    }


def vector(edit: Edit) -> torch.Tensor:
    """What is added to every chosen row."""
    (first, *others) = [term.right[:, 0] for term in edit.delta.terms.values()]  # type: ignore[union-attr]
    assert all(torch.equal(first, other) for other in others)
    return first


def assert_same(edits: list[Edit], others: list[Edit]) -> None:
    for one, other in zip(edits, others, strict=True):
        assert neurons(one) == neurons(other)
        assert torch.equal(vector(one), vector(other))
