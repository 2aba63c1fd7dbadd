"""Chooses which cases are edited one after another, and finds those that contradict one another
(docs/method.md §13.1).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from romexp.errors import ConfigError
from romexp.facts import Case
from romexp.seeds import derive_seed

Order = Literal["shuffled", "file"]
Contradictions = Literal["first", "keep", "refuse"]


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """A case that asks for another answer than an earlier case about the same subject and relation."""

    case: Case
    earlier: Case

    @property
    def reason(self) -> str:
        """What is wrong, for messages."""
        asked, said = self.case.request, self.earlier.request
        return (
            f"asks for {asked.target_new!r} where case {self.earlier.case_id} asks for {said.target_new!r} "
            f"({asked.subject}, {asked.relation_id or asked.prompt})"
        )


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The cases of a sequence of edits, in its order, and those that were left out because they contradict these."""

    cases: tuple[Case, ...]
    contradictions: tuple[Contradiction, ...]


def choose(
    cases: Sequence[Case], *, edits: int | None, order: Order, contradictions: Contradictions, seed: int
) -> Chosen:
    """Choose the cases of a sequence of edits.

    Two cases contradict each other if they have the same subject and relation (or the same prompt where the relation
    is not known), but different new targets.

    Args:
        edits: number of cases; None takes all.
        order: `file`, or `shuffled` by the seed.
        contradictions: `first` leaves out a case that contradicts one before it, `keep` keeps it, and `refuse` raises
            an error.
        seed: the run's seed.

    Raises:
        ConfigError: there are fewer cases than `edits`, or cases contradict each other and that is refused.
    """
    ordered = list(cases)
    if order == "shuffled":
        random.Random(derive_seed(seed, "order_of_edits")).shuffle(ordered)
    kept: list[Case] = []
    against: list[Contradiction] = []
    first: dict[tuple[str, str], Case] = {}
    for case in ordered:
        if edits is not None and len(kept) == edits:
            break
        about = case.request.subject.strip(), case.request.relation_id or case.request.prompt
        earlier = first.setdefault(about, case)
        if earlier.request.target_new.strip() != case.request.target_new.strip():
            found = Contradiction(case=case, earlier=earlier)
            if contradictions == "refuse":
                raise ConfigError(f"task.contradictions: case {case.case_id} {found.reason}")
            against.append(found)
            if contradictions == "first":
                continue
        kept.append(case)
    if edits is not None and len(kept) < edits:
        left_out = f", {len(against)} more contradict them" if against and contradictions == "first" else ""
        raise ConfigError(f"task.edits: {edits} are wanted, but the data set has {len(kept)} cases{left_out}")
    return Chosen(cases=tuple(kept), contradictions=tuple(against))
