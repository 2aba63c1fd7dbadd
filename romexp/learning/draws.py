"""Which edit, rephrasing and locality text each step sees: a function of the seed and the step alone.

So a run that was killed goes on with what it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from romexp.editors.targets import EditText
from romexp.learning.edits import EditPool, TrainingEdit
from romexp.learning.locality import LocalityTexts
from romexp.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One edit with the texts that judge it.

    Attributes:
        text: what the edit is made from.
        outers: texts whose targets the edited model should give.
        locality: token ids of texts on which it should not differ.
    """

    text: EditText
    outers: tuple[EditText, ...]
    locality: tuple[tuple[int, ...], ...]


@dataclass(kw_only=True)
class Draws:
    """The stream of one run.

    Attributes:
        edits, locality: what is drawn from.
        seed: the run's.
        outers: texts of each edit that its loss is taken on.
        locality_texts: locality texts of each edit.
    """

    edits: EditPool
    locality: LocalityTexts
    seed: int
    outers: int = 1
    locality_texts: int = 1
    _order: tuple[int, list[int]] = field(default=(-1, []), init=False)

    def training(self, step: int, count: int) -> list[Draw]:
        """The `count` edits of a step (from 1 on): the training edits in a new random order every epoch."""
        rng = random.Random(derive_seed(self.seed, "training step", step))
        places = range((step - 1) * count, step * count)
        return [self._draw(self._shuffled(place), rng, validation=False) for place in places]

    def validation(self, count: int) -> list[Draw]:
        """The first `count` validation edits of a fixed random order, always with the same texts."""
        order = list(range(len(self.edits.validation)))
        random.Random(derive_seed(self.seed, "validation order")).shuffle(order)
        return [
            self._draw(
                self.edits.validation[i], random.Random(derive_seed(self.seed, "validation", place)), validation=True
            )
            for place, i in enumerate(order[:count])
        ]

    def _shuffled(self, place: int) -> TrainingEdit:
        edits = self.edits.training
        epoch, index = divmod(place, len(edits))
        if self._order[0] != epoch:
            order = list(range(len(edits)))
            random.Random(derive_seed(self.seed, "epoch", epoch)).shuffle(order)
            self._order = (epoch, order)
        return edits[self._order[1][index]]

    def _draw(self, edit: TrainingEdit, rng: random.Random, *, validation: bool) -> Draw:
        outers = tuple(edit.outer(rng) for _ in range(self.outers))
        texts = range(self.locality_texts)
        locality = tuple(self.locality.draw(edit, rng, validation=validation) for _ in texts)
        return Draw(text=edit.text, outers=outers, locality=locality)


def chunks(draws: Sequence[Draw], size: int) -> list[list[Draw]]:
    """Batches of at most `size` draws, in order."""
    return [list(draws[start : start + size]) for start in range(0, len(draws), size)]
