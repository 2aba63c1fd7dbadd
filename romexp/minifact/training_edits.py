"""Edits to train editing networks on: counterfactual facts about subjects that no evaluation record names."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass, field
from typing import Protocol

from romexp.data.counterfact import CounterFact
from romexp.data.dataset import Loaded
from romexp.errors import ConfigError, DataError
from romexp.facts import Case, EditRequest, fill
from romexp.minifact.records import counterfact_records
from romexp.minifact.world import Statement, World, WorldMaker
from romexp.seeds import derive_seed


class CaseFile(Protocol):
    """A data set of cases."""

    def load(self) -> Loaded[Case]: ...


@dataclass(frozen=True, kw_only=True)
class WorldEdits:
    """A data set of cases written on the spot from the world, in the manner of its CounterFact and zsRE records.

    Every fact comes once in one of its wordings before it comes again in another, with another new object. Neighbours
    and unrelated sentences name no held-out subject either.

    Attributes:
        name: short name in folders and tables.
        world: the fictional world.
        held_out: cases whose subjects are left out; None: there are none.
        held_out_questions: likewise; the world has two data sets.
        limit: number of edits.
        questions: share of them that are put as a question with an answer, as in zsRE.
        seed: fixes the edits.
    """

    name: str = "minifact_training"
    world: WorldMaker = field(default_factory=WorldMaker)
    held_out: CaseFile | None = None
    held_out_questions: CaseFile | None = None
    limit: int = 8000
    questions: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit < 1 or not 0 <= self.questions <= 1:
            raise ConfigError(
                f"dataset: expected limit >= 1 and questions from 0 to 1, not {self.limit} and {self.questions}"
            )

    def load(self) -> Loaded[Case]:
        """The edits; `case_id` counts them.

        Raises:
            DataError: the held-out cases leave no subject, or one of them cannot be read.
        """
        world = self.open_world()
        facts = world.told
        if not facts:
            raise DataError("dataset.held_out: no subject of the world is left")
        rng = random.Random(f"minifact training questions {self.seed}")
        cases: list[Case] = []
        parse = CounterFact().parse
        for turn in range(-(-self.limit // len(facts))):
            for record in counterfact_records(world, len(facts), derive_seed("training", self.seed, turn)):
                case_id = len(cases)
                cases.append(parse(case_id, record | {"case_id": case_id}))
        chosen = rng.sample(range(self.limit), round(self.questions * self.limit))
        for case_id in chosen:
            cases[case_id] = _question(case_id, rng.choice(facts), rng.choice(facts), rng)
        kept = tuple(cases[: self.limit])
        text = json.dumps([asdict(case) for case in kept], ensure_ascii=False)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        return Loaded(items=kept, rejected=(), name=self.name, path="the fictional world", sha256=sha256)

    def open_world(self) -> World:
        """The world of the subjects that are not held out."""
        world = self.world()
        sources = [source for source in (self.held_out, self.held_out_questions) if source is not None]
        closed = {case.request.subject for source in sources for case in source.load().items}
        return World(
            statements=tuple(s for s in world.statements if s.entity.name not in closed), withheld=world.withheld
        )


def _question(case_id: int, fact: Statement, other: Statement, rng: random.Random) -> Case:
    """A question about a fact with a wrong answer to learn; the locality question is about another fact."""
    relation, name = fact.relation, fact.entity.name
    return Case(
        case_id=case_id,
        request=EditRequest(
            subject=name,
            prompt=relation.question,
            target_new=rng.choice([item for item in relation.objects if item != fact.object]),
            target_true=fact.object,
            relation_id=relation.relation_id,
        ),
        paraphrase_prompts=(fill(relation.rephrase, name),),
        neighborhood_prompts=(f"nq question: {fill(other.relation.nq_question, other.entity.name)}?",),
        neighborhood_targets=(other.object,),
    )
