"""Records about the world in the schemas of CounterFact, zsRE and the known facts (docs/method.md §1.1 to §1.3)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from romexp.facts import fill
from romexp.minifact.corpus import FILLERS, THING_FILLERS
from romexp.minifact.prompts import unrelated_sentence
from romexp.minifact.relations import PERSON
from romexp.minifact.world import Statement, World

Record = dict[str, Any]

NEIGHBOURS, GENERATIONS, GENERATION_WORDINGS = 10, 10, 3


def counterfact_records(world: World, count: int, seed: int) -> list[Record]:
    """`count` counterfactual edits in the CounterFact schema, each of a different told fact."""
    rng = random.Random(f"minifact counterfact {seed}")
    chosen = rng.sample(world.told, count)
    return [_counterfact_record(world, fact, case_id, rng) for case_id, fact in enumerate(chosen)]


def _counterfact_record(world: World, fact: Statement, case_id: int, rng: random.Random) -> Record:
    relation, name = fact.relation, fact.entity.name
    rewrite, *others = rng.sample(relation.templates, len(relation.templates))
    new = rng.choice([item for item in relation.objects if item != fact.object])
    generations = [fill(template, name) for template in rng.sample(relation.templates, GENERATION_WORDINGS)]
    return {
        "case_id": case_id,
        "pararel_idx": case_id,
        "requested_rewrite": {
            "prompt": rewrite,
            "relation_id": relation.relation_id,
            "target_new": {"str": new, "id": new},
            "target_true": {"str": fact.object, "id": fact.object},
            "subject": name,
        },
        "paraphrase_prompts": [f"{unrelated_sentence(world, name, rng)} {fill(other, name)}" for other in others[:2]],
        "neighborhood_prompts": _prompts_about(world, fact, fact.object, rng),
        "attribute_prompts": _prompts_about(world, fact, new, rng),
        "generation_prompts": rng.choices(generations, k=GENERATIONS),
    }


def _prompts_about(world: World, fact: Statement, target: str, rng: random.Random) -> list[str]:
    """Distinct prompts about other subjects of which `target` is true.

    A subject occurs twice only if there are fewer than `NEIGHBOURS` subjects.
    """
    relation = fact.relation
    facts = world.by_object.get((relation.relation_id, target), ())
    names = [other.entity.name for other in facts if other.entity != fact.entity]
    rng.shuffle(names)
    wordings = {name: rng.sample(relation.templates, len(relation.templates)) for name in names}
    prompts = [fill(wordings[name][i], name) for i in range(len(relation.templates)) for name in names]
    return prompts[:NEIGHBOURS]


def zsre_records(world: World, count: int, seed: int) -> list[Record]:
    """`count` questions in the schema of zsRE: about all facts that the corpus withholds, and about some told facts.

    An unedited model can answer only those about told facts. The locality question is about a told fact of another
    subject.
    """
    rng = random.Random(f"minifact zsre {seed}")
    withheld = rng.sample(world.untold, min(len(world.untold), count))
    chosen = withheld + rng.sample(world.told, count - len(withheld))
    rng.shuffle(chosen)
    return [_zsre_record(world, fact, rng) for fact in chosen]


def _zsre_record(world: World, fact: Statement, rng: random.Random) -> Record:
    relation, name = fact.relation, fact.entity.name
    alternative = rng.choice([item for item in relation.objects if item != fact.object])
    other = rng.choice([item for item in rng.sample(world.told, 20) if item.entity != fact.entity])
    question = fill(relation.question, name)
    return {
        "subject": name,
        "src": question,
        "pred": fact.object,
        "rephrase": fill(relation.rephrase, name),
        "alt": alternative,
        "answers": [fact.object],
        "loc": "nq question: " + fill(other.relation.nq_question, other.entity.name),
        "loc_ans": other.object,
        "cond": f"{fact.object} >> {alternative} || {question}",
    }


def known_records(world: World, count: int, seed: int) -> list[Record]:
    """`count` told facts with prompts for causal tracing. The subject comes first, and several words follow it."""
    rng = random.Random(f"minifact known {seed}")
    return [_known_record(fact, known_id, rng) for known_id, fact in enumerate(rng.sample(world.told, count))]


def _known_record(fact: Statement, known_id: int, rng: random.Random) -> Record:
    template = rng.choice(_tracing_templates(fact, rng))
    return {
        "known_id": known_id,
        "subject": fact.entity.name,
        "attribute": fact.object,
        "template": template,
        "prediction": f" {fact.object}.",
        "prompt": fill(template, fact.entity.name),
        "relation_id": fact.relation.relation_id,
    }


def _tracing_templates(fact: Statement, rng: random.Random) -> Sequence[str]:
    """Templates that begin with the subject and have two or more words after it, also with a filler before the verb."""
    long = [template for template in fact.relation.templates if template.startswith("{}") and len(template.split()) > 2]
    filler = rng.choice(FILLERS if fact.entity.kind == PERSON else THING_FILLERS)
    return long + [template.replace("{} ", "{}" + filler + " ") for template in long if template.startswith("{} ")]
