"""Locality texts, on which an edited model should not change (docs/method.md §4.6)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from romexp.bounds import check_bounds
from romexp.errors import ConfigError, DataError
from romexp.learning.edits import TrainingEdit
from romexp.lm.forward import context_length
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode
from romexp.stats.fit import Corpus

TRIES = 100
"""The corpus is refused if this many texts drawn in succession are too short."""


@dataclass(frozen=True, kw_only=True)
class Locality:
    """Where locality texts come from.

    Attributes:
        corpus: any texts; the authors use `stas/openwebtext-10k`.
        max_tokens: texts are cut to this many tokens, and to the model's context.
        validation: share of the corpus, at its end, that is used for validation.
        limit: number of texts to read from a corpus that cannot be indexed; None reads all of them into memory.
        neighbors: probability with which a text is drawn from the edit's own neighbourhood prompts with their answers,
            instead of the corpus. It is 0 in the authors' code. With 1 the corpus is not read.

    Raises:
        ConfigError: a number is outside its range.
    """

    corpus: Corpus
    max_tokens: int = 200
    validation: float = 0.1
    limit: int | None = None
    neighbors: float = 0.0

    def __post_init__(self) -> None:
        if self.max_tokens < 2:
            raise ConfigError(f"task.locality.max_tokens: expected at least 2, not {self.max_tokens}")
        if not 0 < self.validation < 1 or not 0 <= self.neighbors <= 1:
            raise ConfigError(
                "task.locality: expected validation between 0 and 1 and neighbors from 0 to 1, "
                f"not {self.validation} and {self.neighbors}"
            )
        check_bounds(self, "task.locality", from_1=("limit",))

    def load(self, lm: LanguageModel) -> LocalityTexts:
        """Load the corpus and split it into training and validation.

        Raises:
            DataError: the corpus cannot be read or has fewer than two texts.
        """
        length = min(self.max_tokens, context_length(lm))
        if self.neighbors == 1:
            return LocalityTexts(lm=lm, training=(), validation=(), max_tokens=length, neighbors=1.0)
        texts = self.corpus.load()
        indexable = texts if isinstance(texts, Sequence) else list(islice(texts, self.limit))
        if len(indexable) < 2:
            raise DataError(f"task.locality.corpus: {len(indexable)} texts: training and validation need at least two")
        n_validation = min(max(1, round(self.validation * len(indexable))), len(indexable) - 1)
        n_training = len(indexable) - n_validation
        return LocalityTexts(
            lm=lm,
            training=_Part(indexable, 0, n_training),
            validation=_Part(indexable, n_training, len(indexable)),
            max_tokens=length,
            neighbors=self.neighbors,
        )


class _Part(Sequence[str]):
    """A contiguous part of a sequence. It is a view and not a copy, since a corpus may be read from disk on access."""

    def __init__(self, texts: Sequence[str], start: int, end: int) -> None:
        self._texts, self._start, self._end = texts, start, end

    def __len__(self) -> int:
        return self._end - self._start

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._texts[self._start + index]


@dataclass(frozen=True, kw_only=True)
class LocalityTexts:
    """Loaded locality texts (see `Locality`).

    Attributes:
        training: texts for training.
        validation: texts for validation.
        max_tokens: texts are cut to this many tokens.
        neighbors: probability of drawing from the edit's neighbourhood prompts.
    """

    lm: LanguageModel
    training: Sequence[str]
    validation: Sequence[str]
    max_tokens: int
    neighbors: float

    def draw(self, edit: TrainingEdit, rng: random.Random, *, validation: bool = False) -> tuple[int, ...]:
        """Draw one text for an edit, and return its token ids, at least two.

        Args:
            rng: random generator of the draw.
            validation: draw from the texts for validation instead of those for training.

        Raises:
            DataError: almost all texts of the corpus have fewer than two tokens; or the edit has no neighbourhood
                prompt, and the corpus was not read because `neighbors` is 1.
        """
        texts = self.validation if validation else self.training
        if edit.neighbors and rng.random() < self.neighbors:
            texts = edit.neighbors
        elif not texts:
            raise DataError(
                f"task.locality.neighbors is 1, but an edit about {edit.subject!r} has no neighbourhood prompt: "
                "set it below 1 and give a corpus"
            )
        for _ in range(TRIES):
            (encoding,) = encode(self.lm.tokenizer, [rng.choice(texts)])
            if len(encoding) >= 2:
                return encoding.ids[: self.max_tokens]
        raise DataError(f"task.locality.corpus: {TRIES} texts in a row have fewer than two tokens")
