"""Draws what a record needs from the facts: the new object, and other subjects that share an object (Appendix D)."""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Literal

from romexp.data.building.relations import contains_name
from romexp.data.building.triples import Fact, Object, TripleStore

TRIES = 50
"""How often a new object is drawn before all that are possible are listed."""
MOST_SIZES = 10_000
"""Most numbers of subjects that are kept in memory."""
MOST_LOOKED_AT = 200
"""Most subjects that are looked at to find some that can be used."""


@dataclass(frozen=True, kw_only=True)
class ObjectDraw:
    """The objects of one relation, to draw the new object o* from.

    Attributes:
        objects: the objects, sorted by key.
        weights: `frequency` draws each as often as there are facts with it; `uniform` all equally often.
    """

    objects: Sequence[Object]
    weights: Literal["frequency", "uniform"] = "frequency"

    @cached_property
    def _sums(self) -> list[int]:
        return list(itertools.accumulate(self._weight(each) for each in self.objects))

    def _weight(self, each: Object) -> int:
        return each.count if self.weights == "frequency" else 1

    def __call__(self, fact: Fact, true_keys: Collection[str], rng: Random, counts: Counter[str]) -> Object | None:
        """Draw an object that is not true of the subject and whose name does not clash with it; None if there is none.

        Names clash if one is a part of the other, as in York and New York. Objects that are drawn and clash with o^c
        or with the subject are counted, and another is drawn: so all others keep their relative frequencies.
        """
        for _ in range(TRIES):
            drawn = self.objects[bisect.bisect_right(self._sums, rng.random() * self._sums[-1])]
            if drawn.key in true_keys:
                continue
            if not _clash(drawn.key, fact, true_keys):
                return drawn
            counts["clashing objects drawn again"] += 1
        left = [each for each in self.objects if each.key not in true_keys and not _clash(each.key, fact, true_keys)]
        return rng.choices(left, weights=[self._weight(each) for each in left])[0] if left else None


def _clash(key: str, fact: Fact, true_keys: Collection[str]) -> bool:
    return contains_name(fact.subject_key, key) or any(
        contains_name(key, true) or contains_name(true, key) for true in true_keys
    )


@dataclass(frozen=True, kw_only=True)
class SubjectDraw:
    """Draws other subjects of which an object is true.

    Attributes:
        store: the facts.
    """

    store: TripleStore
    _sizes: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def __call__(
        self, fact: Fact, object_key: str, count: int, rng: Random, *, unnamed: Sequence[str] = ()
    ) -> list[str]:
        """Up to `count` distinct subjects of the fact's split, without the fact's own.

        Args:
            object_key: the object that they share.
            unnamed: keys of names that no drawn subject may contain.
        """
        size = self._size(fact.relation, object_key, fact.split)
        found: list[str] = []
        for wanted in (2 * count + 2, MOST_LOOKED_AT):
            ranks = rng.sample(range(size), min(size, wanted))
            there = self.store.subjects(fact.relation, object_key, fact.split, ranks)
            found = [
                name
                for name, key in (there[rank] for rank in ranks)
                if not contains_name(key, fact.subject_key) and not any(other in key for other in unnamed)
            ]
            if len(found) >= count or size <= wanted:
                break
        return found[:count]

    def _size(self, relation: str, object_key: str, split: int) -> int:
        key = relation, object_key, split
        if key not in self._sizes:
            if len(self._sizes) > MOST_SIZES:
                self._sizes.clear()
            self._sizes[key] = self.store.group_size(relation, object_key, split)
        return self._sizes[key]
