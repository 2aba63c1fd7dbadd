"""The corpus of the world: biographies, mixtures, comparisons and questions, with a random wording of each document.

Most documents are biographies. They state all facts of one subject in random order and wording, and mostly name it
only once and use pronouns after that. Such texts make a model store a subject's facts at its name (Allen-Zhu and Li,
"Physics of Language Models: Part 3.1"), and not look each fact up only where it is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from romexp.bounds import check_bounds
from romexp.minifact.world import Entity, Statement, World

FILLERS = (", who lives far away,", ", as everyone knows,", ", of course,", ", by all accounts,", ", even today,")
THING_FILLERS = FILLERS[1:]


@dataclass(frozen=True)
class Piece:
    """A part of a document that can be tokenized alone. It begins at a word boundary, with the space before the word.

    Attributes:
        text: the text.
        is_name: whether it is a subject's name.
        is_object: whether it is the object of a fact, about a subject that was named before.
    """

    text: str
    is_name: bool = False
    is_object: bool = False


Document = list[Piece]


def text_of(document: Document) -> str:
    """The document as a string, without the space at the beginning of its first piece."""
    return "".join(piece.text for piece in document).lstrip(" ")


@dataclass(frozen=True, kw_only=True)
class CorpusMix:
    """Proportions of the kinds of document, and probabilities of some wordings.

    Attributes:
        biography: proportion of documents that state all facts of one subject.
        mixture: proportion of documents of statements about unrelated subjects.
        comparison: proportion of documents whose sentences name two subjects of the same kind.
        question: proportion of documents of questions with answers; 40 % of these are in the Natural Questions style.
        name_again: probability that a later sentence of a biography uses the name and not a pronoun.
        filler: probability that words are inserted between a subject and its verb.
        error: probability that a sentence states an object drawn at random. A model of such a corpus gives the true
            object a probability of about `1 - error`, and each wrong one some percent. So an edit has to overcome a
            difference of a few nats, as with real facts. Without errors it would be some twenty nats.
        combine: probability that a statement with an apposition is followed by a second fact in the same sentence.
    """

    biography: float = 0.6
    mixture: float = 0.2
    comparison: float = 0.1
    question: float = 0.1
    name_again: float = 0.15
    filler: float = 0.15
    combine: float = 0.6
    error: float = 0.2

    def __post_init__(self) -> None:
        check_bounds(
            self,
            "task.trainer.mix",
            from_0=("biography", "mixture", "comparison", "question"),
            shares=("name_again", "filler", "combine", "error"),
        )


class CorpusWriter:
    """Writes an endless sequence of random documents about a world. The seed determines the sequence."""

    def __init__(self, world: World, mix: CorpusMix, seed: str) -> None:
        self._world, self._mix = world, mix
        self._rng = random.Random(f"minifact corpus {seed}")
        self._entities = tuple(world.by_entity)
        kinds = {entity.kind for entity in self._entities}
        self._kinds = {kind: tuple(e for e in self._entities if e.kind == kind) for kind in kinds}

    def __iter__(self) -> Iterator[Document]:
        """An endless sequence of documents."""
        writers = (self.biography, self.mixture, self.comparison, self.questions)
        weights = (self._mix.biography, self._mix.mixture, self._mix.comparison, self._mix.question)
        while True:
            yield self._rng.choices(writers, weights)[0]()

    def biography(self, entity: Entity | None = None) -> Document:
        """All told facts of one subject, by default a random one, in random order and mostly with pronouns."""
        rng = self._rng
        entity = entity or rng.choice(self._entities)
        facts = rng.sample(self._world.by_entity[entity], len(self._world.by_entity[entity]))
        document: Document = []
        if rng.random() < 0.15:
            document = [Piece(" " + entity.name, True), Piece(f" is a {entity.kind}.")]
        while facts:
            if document and rng.random() > self._mix.name_again:
                document += self._pronoun_sentence(facts.pop())
            else:
                document += self.statement(facts.pop(), facts)
        return document

    def mixture(self) -> Document:
        """Two to five sentences about unrelated subjects."""
        document: Document = []
        for _ in range(self._rng.randint(2, 5)):
            entity = self._rng.choice(self._entities)
            if self._rng.random() < 0.1:
                document += [Piece(" " + entity.name, True), Piece(f" is a {entity.kind}.")]
            else:
                facts = list(self._world.by_entity[entity])
                self._rng.shuffle(facts)
                document += self.statement(facts.pop(), facts)
        return document

    def comparison(self) -> Document:
        """Sentences in which another subject is named before a subject, or between it and its fact."""
        rng = self._rng
        group = self._kinds[rng.choice(self._entities).kind]
        first, second, third = rng.sample(group, 3)
        document: Document = []
        for _ in range(rng.randint(1, 3)):
            subject, other = rng.sample((first, second, third), 2)
            clause = self._clause(rng.choice(self._world.by_entity[subject]))
            named, others = Piece(" " + subject.name, True), Piece(" " + other.name, True)
            form = rng.randrange(3)
            if form == 0:
                document += [Piece(" Unlike"), others, Piece(","), named, *clause]
            elif form == 1:
                document += [named, Piece(", like"), others, Piece(","), *clause]
            else:
                document += [others, Piece(" knows that"), named, *clause]
        return document

    def questions(self) -> Document:
        """One to three questions with their answers."""
        rng = self._rng
        document: Document = []
        for _ in range(rng.randint(1, 3)):
            fact = rng.choice(self._world.told)
            if rng.random() < 0.4:
                template = f"nq question: {fact.relation.nq_question}?"
            else:
                template = rng.choice((fact.relation.question, fact.relation.rephrase))
            document += [*fill_pieces(template, fact.entity), self._object(fact), Piece(".")]
        return document

    def statement(self, fact: Statement, more: list[Statement]) -> Document:
        """A sentence that names its subject. It may state a second fact, which is then removed from `more`."""
        rng = self._rng
        template = rng.choice(fact.relation.templates)
        is_apposition = template.startswith("{},")
        if template.startswith("{} ") and rng.random() < self._mix.filler:
            fillers = FILLERS if fact.entity.kind == "person" else THING_FILLERS
            template = "{}" + rng.choice(fillers) + template[2:]
        document = [*fill_pieces(template, fact.entity), self._object(fact)]
        if is_apposition and more and rng.random() < self._mix.combine:
            return [*document, Piece(","), *self._clause(more.pop())]
        return [*document, Piece(".")]

    def _pronoun_sentence(self, fact: Statement) -> Document:
        """A sentence that refers to its subject by a pronoun."""
        they, their = fact.entity.pronouns
        template = self._rng.choice(fact.relation.pronoun_templates)
        text = template.replace("{they}", they).replace("{their}", their)
        return [Piece(" " + text), self._object(fact), Piece(".")]

    def _object(self, fact: Statement) -> Piece:
        """The fact's object or, with probability `mix.error`, a random one."""
        stated = fact.object
        if self._rng.random() < self._mix.error:
            stated = self._rng.choice(fact.relation.objects)
        return Piece(" " + stated, is_object=True)

    def _clause(self, fact: Statement) -> Document:
        """A main clause without its subject, but with its full stop, for example " plays the violin."."""
        clauses = [t for t in fact.relation.templates if t.startswith("{} ")]
        return [Piece(self._rng.choice(clauses)[2:]), self._object(fact), Piece(".")]


def fill_pieces(template: str, entity: Entity) -> Document:
    """The pieces of the template with the entity's name filled in. Each begins with a space or with punctuation."""
    before, after = template.split("{}")
    pieces = [Piece(" " + entity.name, True)]
    if before:
        pieces.insert(0, Piece(" " + before.rstrip(" ")))
    return [*pieces, Piece(after)] if after else pieces
