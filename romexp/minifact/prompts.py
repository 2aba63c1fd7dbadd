"""Prompts about the world's facts: plain prompts, prompts after an unrelated sentence, and questions."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from romexp.facts import fill
from romexp.minifact.world import Statement, World


def unrelated_sentence(world: World, subject: str, rng: random.Random) -> str:
    """A true sentence about another subject, with its full stop."""
    while True:
        other = rng.choice(world.told)
        if other.entity.name != subject:
            template = rng.choice(other.relation.templates)
            return f"{fill(template, other.entity.name)} {other.object}."


def plain_prompts(facts: Iterable[Statement], rng: random.Random) -> list[tuple[str, str]]:
    """For each fact a pair (prompt, object), with a random template of its relation."""
    return [(fill(rng.choice(fact.relation.templates), fact.entity.name), fact.object) for fact in facts]


def prefixed_prompts(world: World, facts: Sequence[Statement], rng: random.Random) -> list[tuple[str, str]]:
    """As `plain_prompts`, but with an unrelated sentence before each prompt."""
    pairs = zip(facts, plain_prompts(facts, rng), strict=True)
    return [
        (f"{unrelated_sentence(world, fact.entity.name, rng)} {prompt}", target) for fact, (prompt, target) in pairs
    ]


def question_prompts(facts: Iterable[Statement], rng: random.Random) -> list[tuple[str, str]]:
    """For each fact a pair (question, object), with one of the two questions of its relation."""
    return [
        (fill(rng.choice((fact.relation.question, fact.relation.rephrase)), fact.entity.name), fact.object)
        for fact in facts
    ]
