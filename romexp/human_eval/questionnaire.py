"""Makes the questionnaire: its cases, texts, orders and participants (paper App. J, docs/method.md §6.3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from romexp.errors import DataError
from romexp.reporting.html import render
from romexp.seeds import derive_seed

TEMPLATE = Path(__file__).parent / "templates" / "questionnaire.html"

Texts = Mapping[int, Sequence[str]]
"""The texts of one system by case id. A case has one text for each generation prompt, in the order of the prompts."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One counterfactual, with the text that each system generated from the same prompt.

    Attributes:
        id: number of the item in the page and in the answers, from 1.
        case_id: the data set's id of the case.
        statement: the counterfactual as a sentence.
        texts: the texts in the order in which they are shown.
        order: the systems that generated the texts, in the same order.
    """

    id: int
    case_id: int
    statement: str
    texts: tuple[str, ...]
    order: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Questionnaire:
    """A questionnaire.

    Attributes:
        items: all items.
        plan: for each participant the ids of the items to judge, in order. If there are more participants than plans,
            the plans are used again from the first one on.
        left_out: number of cases that could not be used, because a text is missing or no prompt has texts that all
            differ.
    """

    items: tuple[Item, ...]
    plan: tuple[tuple[int, ...], ...]
    left_out: int = 0

    @cached_property
    def digest(self) -> str:
        """12 hexadecimal digits that identify what the participants see."""
        text = json.dumps([self._shown(), self.plan], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _shown(self) -> list[dict[str, Any]]:
        return [{"id": item.id, "statement": item.statement, "texts": item.texts} for item in self.items]

    def blind(self) -> dict[str, Any]:
        """The data of the page, as JSON values. It does not say which system generated a text."""
        return {"questionnaire": self.digest, "items": self._shown(), "plan": self.plan}

    def key(self) -> dict[str, Any]:
        """The data for evaluating answers, as JSON values: the systems of all texts. It is never part of the page."""
        items = [{"id": item.id, "case_id": item.case_id, "order": list(item.order)} for item in self.items]
        return {"questionnaire": self.digest, "items": items, "plan": [list(ids) for ids in self.plan]}


def draw(
    texts: Mapping[str, Texts],
    statements: Mapping[int, str],
    *,
    cases: int,
    participants: int,
    per_participant: int | None,
    seed: int,
) -> Questionnaire:
    """Draw the cases, a prompt for each case, the orders of the texts, and the items of each participant.

    The numbers of times that a system stands at each place differ by at most one; so do the numbers of participants
    that judge each case. A prompt is used only if all systems' texts for it differ, since equal texts cannot be ranked.

    Args:
        texts: the texts of each system.
        statements: the counterfactual of each case as a sentence, by case id.
        cases: number of cases to draw. If fewer can be used, all of these are taken.
        participants: number of participants to plan for.
        per_participant: number of cases that one participant judges; None is all of them.
        seed: seed of all random choices. The same arguments give the same questionnaire.

    Raises:
        DataError: no case can be used.
    """
    systems = list(texts)
    common = sorted(set(statements).intersection(*(set(by_case) for by_case in texts.values())))
    usable = {case_id: prompts for case_id in common if (prompts := _distinct([texts[s][case_id] for s in systems]))}
    if not usable:
        raise DataError(f"not one of {len(common)} common cases has texts of {', '.join(systems)} that all differ")
    chosen = Random(derive_seed(seed, "human_eval", "cases")).sample(sorted(usable), min(cases, len(usable)))
    items = []
    for number, (case_id, order) in enumerate(zip(chosen, _orders(systems, len(chosen), seed), strict=True), start=1):
        prompt = Random(derive_seed(seed, case_id, "human_eval text")).choice(usable[case_id])
        shown = tuple(texts[system][case_id][prompt].strip() for system in order)
        items.append(Item(id=number, case_id=case_id, statement=statements[case_id], texts=shown, order=order))
    plan = _plan(len(items), participants, per_participant, seed)
    return Questionnaire(items=tuple(items), plan=plan, left_out=len(common) - len(usable))


def _distinct(texts: Sequence[Sequence[str]]) -> list[int]:
    """Positions of the prompts for which the texts of all systems differ and none is empty.

    Args:
        texts: for each system, one text for each prompt.
    """
    positions = []
    for position in range(min(len(of_system) for of_system in texts)):
        different = {of_system[position].strip() for of_system in texts}
        if len(different) == len(texts) and "" not in different:
            positions.append(position)
    return positions


def _orders(systems: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
    """An order of the systems for each case. The orders are the rows of Latin squares, so that places are balanced."""
    random = Random(derive_seed(seed, "human_eval", "orders"))
    orders: list[tuple[str, ...]] = []
    while len(orders) < count:
        first = random.sample(list(systems), len(systems))
        square = [tuple(first[i:] + first[:i]) for i in range(len(first))]
        orders += random.sample(square, len(square))
    return orders[:count]


def _plan(items: int, participants: int, per_participant: int | None, seed: int) -> tuple[tuple[int, ...], ...]:
    """The items of each participant, in random order. Each gets those items that have the fewest judges so far."""
    random = Random(derive_seed(seed, "human_eval", "plan"))
    judges = dict.fromkeys(range(1, items + 1), 0)
    plan = []
    for _ in range(participants):
        # The sort is stable, so items with equally many judges stay in random order.
        candidates = sorted(random.sample(list(judges), items), key=judges.__getitem__)
        assigned = candidates[: per_participant or items]
        random.shuffle(assigned)
        plan.append(tuple(assigned))
        for number in assigned:
            judges[number] += 1
    return tuple(plan)


def questionnaire_page(questionnaire: Questionnaire) -> str:
    """The page as HTML. It holds statements and texts, but nothing that says which system generated a text.

    As in the paper, people rank the texts by consistency with the counterfactual, and by fluency. The wording is ours.
    """
    return render(
        TEMPLATE,
        ("questionnaire.js",),
        title="Comparing texts",
        data=questionnaire.blind(),
        per_participant=len(questionnaire.plan[0]),
        systems=len(questionnaire.items[0].texts),
    )
