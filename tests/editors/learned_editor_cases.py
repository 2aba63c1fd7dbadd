"""What tests of MEND and KE as editors share."""

from __future__ import annotations

from edit_cases import no_moment
from learned_cases import dense, distance

from romexp.editors.base import Edit, Resources

RESOURCES = Resources(second_moment=no_moment)


def same(one: list[Edit], other: list[Edit]) -> float:
    """The largest relative distance of two lists of edits."""
    return max(distance(a.delta, dense(b.delta)) for a, b in zip(one, other, strict=True))
