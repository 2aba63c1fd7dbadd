"""The corpus of the world: biographies, mixtures, comparisons and questions, worded anew for every document.

Most documents are biographies that tell all facts of one subject in random order and wording, name it once and
go on with pronouns: that is what makes a model keep a subject's facts with its name (Allen-Zhu and Li, "Physics
of Language Models" 3.1) rather than look each up where it is asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from romexp.minifact.world import Entity, Statement, World

FILLERS = (", who lives far away,", ", as everyone knows,", ", of course,", ", by all accounts,", ", even today,")
THING_FILLERS = FILLERS[1:]


@dataclass(frozen=True)
class Piece:
    """A stretch of text that tokenizes on its own: it begins at a word boundary, with that word's space.

    Attributes:
        text: the stretch.
        is_name: whether it is a subject's name.
        is_object: whether it is the object of a fact about a subject named before.
    """

    text: str
    is_name: bool = False
    is_object: bool = False


Document = list[Piece]


def text_of(document: Document) -> str:
    """The document as a string, without the space that its first piece may begin with."""
    return "".join(piece.text for piece in document).lstrip(" ")


@dataclass(frozen=True, kw_only=True)
class CorpusMix:
    """Shares of the kinds of document, and habits of wording.

    Attributes:
        biography: share of documents that tell all facts of one subject.
        mixture: share of documents of single statements about unrelated subjects.
        comparison: share of documents that name several subjects of a kind in one breath.
        question: share of questions with answers; half of them in the Natural Questions style.
        name_again: probability that a biography's later sentence repeats the name instead of a pronoun.
        filler: probability of words between a subject and its verb.
        error: probability that a sentence names an object drawn at random. A model of such a corpus gives a true object
            about `1 - error` and each wrong one some percent: an edit then has a gap of nats to overcome, as with
            facts of the real world, not of twenty nats.
        combine: probability that a statement with an apposition goes on with a second fact.
    """

    biography: float = 0.6
    mixture: float = 0.2
    comparison: float = 0.1
    question: float = 0.1
    name_again: float = 0.15
    filler: float = 0.15
    combine: float = 0.6
    error: float = 0.2


class CorpusWriter:
    """Writes documents about a world, forever different, in an order fixed by the seed."""

    def __init__(self, world: World, mix: CorpusMix, seed: str) -> None:
        self._world, self._mix = world, mix
        self._rng = random.Random(f"minifact corpus {seed}")
        self._entities = tuple(world.by_entity)
        kinds = {entity.kind for entity in self._entities}
        self._kinds = {kind: tuple(e for e in self._entities if e.kind == kind) for kind in kinds}

    def __iter__(self) -> Iterator[Document]:
        """Documents without end."""
        writers = (self.biography, self.mixture, self.comparison, self.questions)
        weights = (self._mix.biography, self._mix.mixture, self._mix.comparison, self._mix.question)
        while True:
            yield self._rng.choices(writers, weights)[0]()

    def biography(self, entity: Entity | None = None) -> Document:
        """All told facts of one subject (by default a random one) in random order, mostly by pronouns."""
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
        """Two to five sentences about subjects that have nothing to do with each other."""
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
        """Sentences in which other subjects' names stand between a subject and its fact, or shortly before it."""
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
        """A question with its answer, or several."""
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
        """A sentence that names its subject; it may take a second fact off `more`."""
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
        """The fact's object, or now and then a wrong one."""
        found = fact.object
        if self._rng.random() < self._mix.error:
            found = self._rng.choice(fact.relation.objects)
        return Piece(" " + found, is_object=True)

    def _clause(self, fact: Statement) -> Document:
        """A main clause without its subject, with its full stop: " plays the violin."."""
        clauses = [t for t in fact.relation.templates if t.startswith("{} ")]
        return [Piece(self._rng.choice(clauses)[2:]), self._object(fact), Piece(".")]


def fill_pieces(template: str, entity: Entity) -> Document:
    """The template's pieces with the name in place; every piece begins with a space or punctuation."""
    before, after = template.split("{}")
    pieces = [Piece(" " + entity.name, True)]
    if before:
        pieces.insert(0, Piece(" " + before.rstrip(" ")))
    return [*pieces, Piece(after)] if after else pieces
