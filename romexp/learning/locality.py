"""Texts on which an edited model must stay as it was (docs/method.md §4.6)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from romexp.errors import ConfigError, DataError
from romexp.learning.edits import TrainingEdit
from romexp.lm.forward import context_length
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode
from romexp.stats.fit import Corpus

TRIES = 100
"""Texts drawn in a row that may be too short before the corpus is refused."""


@dataclass(frozen=True, kw_only=True)
class Locality:
    """Where locality texts come from.

    Attributes:
        corpus: any texts; the authors took `stas/openwebtext-10k`.
        max_tokens: texts are cut to this many tokens, and to the model's context.
        validation: share of the corpus, at its end, that is for validation.
        limit: read only so many texts of a corpus that cannot be indexed; None reads all of them into memory.
        neighbors: probability that a text is taken from the edit's own neighbourhood prompts, with their answers,
            instead of the corpus. The authors' is 0; at 1 the corpus is not read.
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

    def load(self, lm: LanguageModel) -> LocalityTexts:
        """Make the texts ready.

        Raises:
            DataError: the corpus cannot be read or has fewer than two texts.
        """
        length = min(self.max_tokens, context_length(lm))
        if self.neighbors == 1:
            return LocalityTexts(lm=lm, training=(), validation=(), max_tokens=length, neighbors=1.0)
        texts = self.corpus.load()
        indexable = texts if isinstance(texts, Sequence) else list(islice(texts, self.limit))
        if len(indexable) < 2:
            raise DataError(f"task.locality.corpus: {len(indexable)} texts: too few to train on some and keep others")
        kept_back = min(max(1, round(self.validation * len(indexable))), len(indexable) - 1)
        border = len(indexable) - kept_back
        return LocalityTexts(
            lm=lm,
            training=_Part(indexable, 0, border),
            validation=_Part(indexable, border, len(indexable)),
            max_tokens=length,
            neighbors=self.neighbors,
        )


class _Part(Sequence[str]):
    """A stretch of a sequence that is not copied: a corpus may be read from disk text by text."""

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
    """Locality texts of one model; see `Locality`."""

    lm: LanguageModel
    training: Sequence[str]
    validation: Sequence[str]
    max_tokens: int
    neighbors: float

    def draw(self, edit: TrainingEdit, rng: random.Random, *, validation: bool = False) -> tuple[int, ...]:
        """Token ids of one text, two at least.

        Raises:
            DataError: the corpus has hardly any text of two tokens, or is needed but was not read.
        """
        texts = self.validation if validation else self.training
        if edit.neighbors and rng.random() < self.neighbors:
            texts = edit.neighbors
        elif not texts:
            raise DataError(
                f"task.locality.neighbors is 1, but an edit about {edit.subject!r} has no neighbourhood prompt: "
                "give a lower one, and a corpus"
            )
        for _ in range(TRIES):
            (encoding,) = encode(self.lm.tokenizer, [rng.choice(texts)])
            if len(encoding) >= 2:
                return encoding.ids[: self.max_tokens]
        raise DataError(f"task.locality.corpus: {TRIES} texts in a row have fewer than two tokens")
