"""A fictional world made from a seed: people, buildings and devices, and one object for each of their relations.

A name combines parts that many subjects share ("Corya" + "Dun" + "ini"), so that no part alone tells a fact, and objects
are drawn independently, so that no fact tells another.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from functools import cached_property

from romexp.minifact.relations import BUILDING, DEVICE, PERSON, RELATIONS, Relation

_FIRST_NAMES = (
    "Corya Dava Zanya Halo Jonik Lenus Oster Kirya Nimus Pavik Torus Velo Berus Marik Selus Ostine Wilda Radek Tamsin Yorin "
    "Elko Fadia Gerun Idris Liora Mavis Nerys Quilla Rufin Sabra Thora Ulric"
).split()
_LAST_STEMS = "Dun Lind Garr Kov Fen Mir Tarn Vor Wex Ash Rook Pell Cald Sten Hart Holt".split()
_LAST_ENDINGS = "wood sson ari man ley well berg moor".split()
_BUILDING_STEMS = "Thorn Mill Oak Raven Silver Stone Castle Amber Frost Marsh".split()
_BUILDING_ENDINGS = "crest gate brook field haven mere".split()
_BUILDING_TYPES = "Tower Museum Theatre Bridge Palace Library Chapel Stadium".split()
_DEVICE_STEMS = "Nex Zyl Orb Vant Kyro Plex Tri Quor Dex Lum".split()
_DEVICE_ENDINGS = "pad tron ix ola cam wave".split()
_DEVICE_TYPES = "Mini Pro Max Lite Plus Ultra Prime Duo".split()


@dataclass(frozen=True, kw_only=True)
class Entity:
    """A subject: its name, its kind, and its pronouns (nominative, possessive)."""

    name: str
    kind: str
    pronouns: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A fact of the world: `entity` stands in `relation` to `object`."""

    entity: Entity
    relation: Relation
    object: str


@dataclass(frozen=True, kw_only=True)
class World:
    """All subjects and facts.

    Attributes:
        statements: every fact, told or withheld, ordered by subject.
        withheld: (subject, relation_id) of true facts that the corpus never tells.
    """

    statements: tuple[Statement, ...]
    withheld: frozenset[tuple[str, str]]

    @cached_property
    def told(self) -> tuple[Statement, ...]:
        """The facts that the corpus tells, hence that a trained model should know."""
        return tuple(s for s in self.statements if (s.entity.name, s.relation.relation_id) not in self.withheld)

    @cached_property
    def untold(self) -> tuple[Statement, ...]:
        """The facts that the corpus withholds."""
        return tuple(s for s in self.statements if (s.entity.name, s.relation.relation_id) in self.withheld)

    @cached_property
    def by_entity(self) -> dict[Entity, tuple[Statement, ...]]:
        """The told facts of each subject."""
        groups = itertools.groupby(self.told, key=lambda s: s.entity)
        return {entity: tuple(group) for entity, group in groups}

    @cached_property
    def by_object(self) -> dict[tuple[str, str], tuple[Statement, ...]]:
        """The told facts of each (relation_id, object)."""
        found: dict[tuple[str, str], list[Statement]] = {}
        for statement in self.told:
            found.setdefault((statement.relation.relation_id, statement.object), []).append(statement)
        return {key: tuple(group) for key, group in found.items()}


@dataclass(frozen=True, kw_only=True)
class WorldMaker:
    """Draws a world.

    Attributes:
        people, buildings, devices: numbers of subjects.
        withheld: share of facts that the corpus will not tell (never more than one a subject).
        seed: fixes names and facts.
    """

    people: int = 600
    buildings: int = 160
    devices: int = 160
    withheld: float = 0.05
    seed: int = 0

    def __call__(self) -> World:
        rng = random.Random(f"minifact world {self.seed}")
        entities = self._entities(rng)
        statements = tuple(
            Statement(entity=entity, relation=relation, object=rng.choice(relation.objects))
            for entity in entities
            for relation in RELATIONS
            if relation.kind == entity.kind
        )
        count = min(round(self.withheld * len(statements)), len(entities))
        withheld = {}
        for statement in rng.sample(statements, len(statements)):
            if len(withheld) < count:
                withheld.setdefault(statement.entity.name, statement.relation.relation_id)
        return World(statements=statements, withheld=frozenset(withheld.items()))

    def _entities(self, rng: random.Random) -> list[Entity]:
        kinds = (
            (PERSON, self.people, [_FIRST_NAMES, [" "], _LAST_STEMS, _LAST_ENDINGS]),
            (BUILDING, self.buildings, [_BUILDING_STEMS, _BUILDING_ENDINGS, [" "], _BUILDING_TYPES]),
            (DEVICE, self.devices, [_DEVICE_STEMS, _DEVICE_ENDINGS, [" "], _DEVICE_TYPES]),
        )
        entities = []
        for kind, count, parts in kinds:
            names = ["".join(choice) for choice in itertools.product(*parts)]
            for name in rng.sample(names, count):
                pronouns = ("It", "Its") if kind != PERSON else rng.choice((("She", "Her"), ("He", "His")))
                entities.append(Entity(name=name, kind=kind, pronouns=pronouns))
        return entities


def name_parts() -> tuple[str, ...]:
    """All parts of names as they occur in text: the beginning of a word with its space, an ending without."""
    begin = (_FIRST_NAMES, _LAST_STEMS, _BUILDING_STEMS, _BUILDING_TYPES, _DEVICE_STEMS, _DEVICE_TYPES)
    endings = _LAST_ENDINGS + _BUILDING_ENDINGS + _DEVICE_ENDINGS
    opening = _FIRST_NAMES + _BUILDING_STEMS + _DEVICE_STEMS
    return tuple([" " + part for group in begin for part in group] + endings + opening)
