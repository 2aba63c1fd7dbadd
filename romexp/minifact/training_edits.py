"""Edits for training editing networks: counterfactual facts about subjects that no evaluation record names."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass, field
from typing import Protocol

from romexp.bounds import check_bounds
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
    """A data set of cases that is generated from the world, like the world's CounterFact and zsRE records.

    Each fact is used once before any fact is used again. Wording and new object are drawn anew each time. Held-out
    subjects occur neither in the edits nor in their neighbourhood prompts and unrelated sentences.

    Attributes:
        name: short name in folders and tables.
        world: the fictional world.
        held_out: cases whose subjects are held out; None holds none out.
        held_out_questions: more such cases, of the world's other data set.
        limit: number of edits.
        questions: fraction of the edits that are a question with an answer, as in zsRE.
        seed: seed of the edits.

    Raises:
        ConfigError: `limit` or `questions` is out of range.
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
        check_bounds(self, "dataset", from_0=("seed",))

    def load(self) -> Loaded[Case]:
        """Generate the edits. Their `case_id`s are 0, 1, 2, …

        Raises:
            DataError: all subjects are held out, or a file of held-out cases cannot be read.
        """
        world = self.open_world()
        facts = world.told
        if not facts:
            raise DataError("dataset.held_out: no subject of the world is left")
        rng = random.Random(f"minifact training questions {self.seed}")
        cases: list[Case] = []
        parse = CounterFact().parse
        for repeat in range(-(-self.limit // len(facts))):
            for record in counterfact_records(world, len(facts), derive_seed("training", self.seed, repeat)):
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
        """The world without the held-out subjects."""
        world = self.world()
        sources = [source for source in (self.held_out, self.held_out_questions) if source is not None]
        held_out = {case.request.subject for source in sources for case in source.load().items}
        return World(
            statements=tuple(s for s in world.statements if s.entity.name not in held_out), withheld=world.withheld
        )


def _question(case_id: int, fact: Statement, other: Statement, rng: random.Random) -> Case:
    """An edit that teaches a wrong answer to a question about a fact. The locality question is about another fact."""
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
