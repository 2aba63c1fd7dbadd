"""A fictional world made from a seed: people, buildings and devices, and one object for each of their relations.

A name has two words, and several subjects share each word: about five people share a surname, and about twenty a first
name. So one word alone does not determine a fact, though a surname leaves only a few possibilities. Objects are drawn
independently, so no fact can be inferred from another.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from functools import cached_property

from romexp.bounds import check_bounds
from romexp.minifact.relations import BUILDING, DEVICE, PERSON, RELATIONS, Relation, words

_FIRST_NAMES = words(
    "Corya Dava Zanya Halo Jonik Lenus Oster Kirya Nimus Pavik Torus Velo Berus Marik Selus Ostine "
    "Wilda Radek Tamsin Yorin Elko Fadia Gerun Idris Liora Mavis Nerys Quilla Rufin Sabra Thora Ulric"
)
_LAST_STEMS = words("Dun Lind Garr Kov Fen Mir Tarn Vor Wex Ash Rook Pell Cald Sten Hart Holt")
_LAST_ENDINGS = words("wood sson ari man ley well berg moor")
_BUILDING_STEMS = words("Thorn Mill Oak Raven Silver Amber")
_BUILDING_ENDINGS = words("crest gate brook field mere")
_BUILDING_TYPES = words("Tower Museum Theatre Bridge Palace Library Chapel Stadium")
_DEVICE_STEMS = words("Nex Zyl Orb Vant Kyro Plex")
_DEVICE_ENDINGS = words("pad tron ix cam wave")
_DEVICE_TYPES = words("Mini Pro Max Lite Plus Ultra Prime Duo")


@dataclass(frozen=True, kw_only=True)
class Entity:
    """A subject: its name, its kind, and its pronouns (nominative, possessive)."""

    name: str
    kind: str
    pronouns: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A fact of the world: `entity` has the relation `relation` to `object`."""

    entity: Entity
    relation: Relation
    object: str


@dataclass(frozen=True, kw_only=True)
class World:
    """All subjects and facts.

    Attributes:
        statements: every fact, told or withheld, grouped by subject.
        withheld: (subject, relation_id) of the facts that the corpus never states. All other facts are told.
    """

    statements: tuple[Statement, ...]
    withheld: frozenset[tuple[str, str]]

    @cached_property
    def told(self) -> tuple[Statement, ...]:
        """The facts that the corpus states. A trained model should know them."""
        return tuple(s for s in self.statements if (s.entity.name, s.relation.relation_id) not in self.withheld)

    @cached_property
    def untold(self) -> tuple[Statement, ...]:
        """The facts that the corpus never states."""
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

    def part(self, subjects: int, seed: int) -> World:
        """A smaller world of at most `subjects` subjects, drawn at random."""
        entities = tuple(self.by_entity)
        chosen = set(random.Random(f"minifact part {seed}").sample(entities, min(subjects, len(entities))))
        return World(statements=tuple(s for s in self.statements if s.entity in chosen), withheld=self.withheld)


@dataclass(frozen=True, kw_only=True)
class WorldMaker:
    """Draws a random world.

    Attributes:
        people, buildings, devices: numbers of subjects.
        withheld: fraction of the facts that the corpus never states. It withholds at most one fact of each subject.
        seed: seed of the names and facts.
    """

    people: int = 600
    buildings: int = 160
    devices: int = 160
    withheld: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_bounds(self, "world", from_0=("seed", "people", "buildings", "devices"), shares=("withheld",))

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
        withheld: dict[str, str] = {}
        for statement in rng.sample(statements, len(statements)):
            if len(withheld) < count:
                withheld.setdefault(statement.entity.name, statement.relation.relation_id)
        return World(statements=statements, withheld=frozenset(withheld.items()))

    def _entities(self, rng: random.Random) -> list[Entity]:
        kinds = (
            (PERSON, self.people, (_FIRST_NAMES, (" ",), _LAST_STEMS, _LAST_ENDINGS)),
            (BUILDING, self.buildings, (_BUILDING_STEMS, _BUILDING_ENDINGS, (" ",), _BUILDING_TYPES)),
            (DEVICE, self.devices, (_DEVICE_STEMS, _DEVICE_ENDINGS, (" ",), _DEVICE_TYPES)),
        )
        entities = []
        for kind, count, parts in kinds:
            names = ["".join(choice) for choice in itertools.product(*parts)]
            for name in rng.sample(names, count):
                pronouns = ("It", "Its") if kind != PERSON else rng.choice((("She", "Her"), ("He", "His")))
                entities.append(Entity(name=name, kind=kind, pronouns=pronouns))
        return entities


def name_words() -> tuple[str, ...]:
    """All words of names as they occur in texts: with a space before, and without it if a name can begin with them."""
    last = [stem + ending for stem in _LAST_STEMS for ending in _LAST_ENDINGS]
    buildings = [stem + ending for stem in _BUILDING_STEMS for ending in _BUILDING_ENDINGS]
    devices = [stem + ending for stem in _DEVICE_STEMS for ending in _DEVICE_ENDINGS]
    opening = [*_FIRST_NAMES, *buildings, *devices]
    spaced = [*opening, *last, *_BUILDING_TYPES, *_DEVICE_TYPES]
    return (*(" " + word for word in spaced), *opening)
