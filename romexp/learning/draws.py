"""Chooses the edit, the judging texts and the locality texts of each training step (docs/method.md §4.6).

The choice depends only on the seed and the step, so a resumed run sees the same texts as an uninterrupted one.
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
    """One edit with the texts on which the edited model is judged.

    Attributes:
        text: the text from which the edit is computed.
        outers: texts for the edit loss: the edited model should predict their targets.
        locality: token ids of the texts for the locality loss: on them the edited model should not change.
    """

    text: EditText
    outers: tuple[EditText, ...]
    locality: tuple[tuple[int, ...], ...]


@dataclass(kw_only=True)
class Draws:
    """The draws of one training run.

    Attributes:
        edits: the edits to draw from.
        locality: the locality texts to draw from.
        seed: the run's seed.
        outers: number of judging texts per edit.
        locality_texts: number of locality texts per edit.
    """

    edits: EditPool
    locality: LocalityTexts
    seed: int
    outers: int = 1
    locality_texts: int = 1
    _order: tuple[int, list[int]] = field(default=(-1, []), init=False)

    def training(self, step: int, count: int) -> list[Draw]:
        """The `count` draws of a step. In each epoch the training edits come in a new random order.

        Args:
            step: number of the step, from 1 on.
        """
        rng = random.Random(derive_seed(self.seed, "training step", step))
        places = range((step - 1) * count, step * count)
        return [self._draw(self._edit_at(place), rng, validation=False) for place in places]

    def validation(self, count: int) -> list[Draw]:
        """Draws of the first `count` validation edits in a fixed random order. They are the same at each call."""
        order = list(range(len(self.edits.validation)))
        random.Random(derive_seed(self.seed, "validation order")).shuffle(order)
        return [
            self._draw(
                self.edits.validation[i], random.Random(derive_seed(self.seed, "validation", place)), validation=True
            )
            for place, i in enumerate(order[:count])
        ]

    def _edit_at(self, place: int) -> TrainingEdit:
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
    """Split draws into batches of at most `size`, in order."""
    return [list(draws[start : start + size]) for start in range(0, len(draws), size)]
