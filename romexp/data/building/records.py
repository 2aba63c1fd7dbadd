"""Makes one record in CounterFact's schema from one fact (the paper's Appendix D)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from romexp.data.building.draws import ObjectDraw, SubjectDraw
from romexp.data.building.relations import Relation, contains_name, name_key
from romexp.data.building.triples import Fact, Object
from romexp.facts import fill
from romexp.seeds import derive_seed

Record = dict[str, Any]
DISTINCT_GENERATIONS = 3
"""Most different generation prompts of a record; the paper's have three on average."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many prompts of each kind a record has.

    Attributes:
        neighbours: prompts about other subjects with the same true object.
        least_neighbours: a record about a fact with fewer other subjects is dropped.
        attributes: prompts about subjects with the new object.
        paraphrases: prompts in other words.
        generations: beginnings of texts, drawn with repeats.
    """

    neighbours: int = 10
    least_neighbours: int = 10
    attributes: int = 10
    paraphrases: int = 2
    generations: int = 10


@dataclass(frozen=True, kw_only=True)
class RecordMaker:
    """Makes the records of one relation.

    Attributes:
        name: the relation.
        relation: its templates.
        objects: its objects, by key.
        usable: keys of the objects that an edit may have as old or new answer; None is all.
        draw_object: draws the new object.
        draw_subjects: draws the subjects of neighbourhood and attribute prompts.
        sizes: numbers of prompts.
        sentences: unrelated sentences to put before paraphrases; none leaves paraphrases bare.
        seed: the seed of the whole data set. A record's draws depend on it and on the fact alone.
    """

    name: str
    relation: Relation
    objects: Mapping[str, Object]
    usable: Collection[str] | None
    draw_object: ObjectDraw
    draw_subjects: SubjectDraw
    sizes: Sizes
    sentences: Sequence[str]
    seed: int

    def __call__(self, fact: Fact, true_keys: Collection[str], counts: Counter[str]) -> tuple[int, Record] | None:
        """The record and the number by which the data set is ordered; None if it is dropped, which is counted."""
        if self.usable is not None and fact.object_key not in self.usable:
            counts["object of several tokens"] += 1
            return None
        rng = Random(derive_seed(self.seed, fact.relation, fact.subject_key, fact.object_key))
        order = rng.getrandbits(62)
        true = self.objects[fact.object_key]
        new = self.draw_object(fact, true_keys, rng, counts)
        if new is None:
            counts["no other object"] += 1
            return None
        templates = [text for text in self.relation.prompts if not contains_name(_key(text), new.key)]
        others = self.draw_subjects(fact, true.key, self.sizes.neighbours, rng, unnamed=(new.key,))
        if not templates or len(others) < min(self.sizes.least_neighbours, self.sizes.neighbours):
            counts["too few neighbours"] += 1
            return None
        return order, self._record(fact, true, new, templates, others, rng)

    def _record(
        self, fact: Fact, true: Object, new: Object, templates: Sequence[str], others: Sequence[str], rng: Random
    ) -> Record:
        rewrite = rng.choice(templates)
        with_new = self.draw_subjects(fact, new.key, self.sizes.attributes, rng)
        return {
            "requested_rewrite": {
                "prompt": rewrite,
                "relation_id": self.name,
                "target_new": {"str": new.name, "id": new.name},
                "target_true": {"str": true.name, "id": true.name},
                "subject": fact.subject,
            },
            "paraphrase_prompts": self._paraphrases(fact, rewrite, (true, new), rng),
            "neighborhood_prompts": _prompts_about(others, templates, self.sizes.neighbours, rng),
            "attribute_prompts": _prompts_about(with_new, self.relation.prompts, self.sizes.attributes, rng),
            "generation_prompts": self._generations(fact, rng),
        }

    def _paraphrases(self, fact: Fact, rewrite: str, answers: tuple[Object, Object], rng: Random) -> list[str]:
        pool = [text for text in self.relation.paraphrases or self.relation.prompts if text != rewrite]
        chosen = rng.sample(pool, min(self.sizes.paraphrases, len(pool)))
        names = (fact.subject_key, *(answer.key for answer in answers))
        before = [self._sentence(names, rng) for _ in chosen]
        return [f"{sentence} {fill(text, fact.subject)}".strip() for sentence, text in zip(before, chosen, strict=True)]

    def _sentence(self, names: Sequence[str], rng: Random) -> str:
        """A sentence that names neither the subject nor an answer; empty if none is found."""
        for sentence in rng.sample(self.sentences, min(10, len(self.sentences))):
            if not any(contains_name(_key(sentence), name) for name in names):
                return sentence
        return ""

    def _generations(self, fact: Fact, rng: Random) -> list[str]:
        pool = self.relation.generations or self.relation.prompts
        some = rng.sample(pool, min(DISTINCT_GENERATIONS, len(pool)))
        return [fill(text, fact.subject) for text in rng.choices(some, k=self.sizes.generations)]


@lru_cache(maxsize=4096)
def _key(text: str) -> str:
    return name_key(text)


def _prompts_about(names: Sequence[str], templates: Sequence[str], count: int, rng: Random) -> list[str]:
    """`count` distinct prompts, each about another subject; where there are fewer, in several wordings each."""
    if len(names) >= count:
        return [fill(rng.choice(templates), name) for name in names[:count]]
    wordings = [rng.sample(templates, len(templates)) for _ in names]
    prompts = [fill(words[i], name) for i in range(len(templates)) for words, name in zip(wordings, names, strict=True)]
    return prompts[:count]
