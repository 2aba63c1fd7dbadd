"""What a human evaluation asks: which cases, which texts, in which order, of whom (paper App. J, docs/method.md §6)."""

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
"""By case id the texts of one system, one a generation prompt, in the prompts' order."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One counterfactual with one text of every system, about the same prompt.

    Attributes:
        id: 1, 2, …: what page and answers call it.
        case_id: the data set's id.
        statement: the counterfactual in a sentence.
        texts: as shown.
        order: the systems that wrote them.
    """

    id: int
    case_id: int
    statement: str
    texts: tuple[str, ...]
    order: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Questionnaire:
    """Everything that is asked.

    Attributes:
        items: every counterfactual.
        plan: for participant 1, 2, … the items to judge, in order; further participants begin again at the first.
        left_out: cases that could not be used: a text is missing, or no prompt has texts that all differ.
    """

    items: tuple[Item, ...]
    plan: tuple[tuple[int, ...], ...]
    left_out: int = 0

    @cached_property
    def digest(self) -> str:
        """Names what the participants see; 12 hexadecimal digits."""
        text = json.dumps([self._shown(), self.plan], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _shown(self) -> list[dict[str, Any]]:
        return [{"id": item.id, "statement": item.statement, "texts": item.texts} for item in self.items]

    def blind(self) -> dict[str, Any]:
        """What the page may know: texts without their systems. JSON-ready."""
        return {"questionnaire": self.digest, "items": self._shown(), "plan": self.plan}

    def key(self) -> dict[str, Any]:
        """What tells the systems, and whose answers are to be expected. JSON-ready; never part of the page."""
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
    """Draw cases, a prompt for each, orders and assignments; the same arguments give the same questionnaire.

    Every system stands equally often at every place (to within one case), and every case is judged equally often (to
    within one participant). A prompt is only used if the systems' texts about it all differ: two equal ones cannot be
    ranked.

    Args:
        texts: by system.
        statements: by case id.
        cases: how many to draw; all usable ones if there are fewer.
        participants: for how many to plan.
        per_participant: cases that one participant judges; None is all of them.

    Raises:
        DataError: not one case can be used.
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
    """Prompts, by position, about which all systems wrote something and no two the same."""
    found = []
    for position in range(min(len(mine) for mine in texts)):
        written = {mine[position].strip() for mine in texts}
        if len(written) == len(texts) and "" not in written:
            found.append(position)
    return found


def _orders(systems: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
    """An order a case: Latin squares of random rows, so that places are balanced."""
    random = Random(derive_seed(seed, "human_eval", "orders"))
    orders: list[tuple[str, ...]] = []
    while len(orders) < count:
        first = random.sample(list(systems), len(systems))
        square = [tuple(first[i:] + first[:i]) for i in range(len(first))]
        orders += random.sample(square, len(square))
    return orders[:count]


def _plan(items: int, participants: int, per_participant: int | None, seed: int) -> tuple[tuple[int, ...], ...]:
    """The items of each participant: always those that were given least often so far, in random order."""
    random = Random(derive_seed(seed, "human_eval", "plan"))
    given = dict.fromkeys(range(1, items + 1), 0)
    plan = []
    for _ in range(participants):
        candidates = sorted(random.sample(list(given), items), key=given.__getitem__)  # sorted() keeps ties in order
        mine = candidates[: per_participant or items]
        random.shuffle(mine)
        plan.append(tuple(mine))
        for number in mine:
            given[number] += 1
    return tuple(plan)


def questionnaire_page(questionnaire: Questionnaire) -> str:
    """The page's text. It holds statements and texts, and nothing that says which system wrote which.

    The questions are the paper's: rank for consistency with the counterfactual, rank for fluency. The wording is ours.
    """
    return render(
        TEMPLATE,
        ("questionnaire.js",),
        title="Comparing texts",
        data=questionnaire.blind(),
        per_participant=len(questionnaire.plan[0]),
        systems=len(questionnaire.items[0].texts),
    )
