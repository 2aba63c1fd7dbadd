"""A corpus that the model writes itself, to measure its second moments without a download."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from romexp.bounds import check_bounds
from romexp.errors import ConfigError, DataError, raise_first_error
from romexp.files import write_once
from romexp.lm.forward import context_length
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler, generate
from romexp.seeds import derive_seed
from romexp.stats.cache import key_of
from romexp.stats.fit import Progress

SPARE = 1.1
"""More texts are drawn than seem to be needed by this factor: read again, a text may have fewer tokens than drawn."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SampledTexts:
    """Texts sampled from the model at temperature 1 (option `sampled` of `covariance`).

    A text begins with the token that the tokenizer puts before every text (BOS), else with the end-of-text token. The
    paper measures on Wikipedia instead; these texts need no download. How many are drawn, `Covariance.max_tokens`
    decides.

    Attributes:
        length: tokens of a text.
        top_k: number of most likely tokens among which each token is drawn; None draws from all.
        seed: seed of the sampling.

    Raises:
        ConfigError: a number is out of range.
    """

    length: int = 100
    top_k: int | None = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_bounds(self, "covariance.corpus", from_0=("seed",), from_1=("top_k",))
        if self.length < 2:
            raise ConfigError(f"covariance.corpus.length: expected at least 2 tokens, not {self.length}")

    def written_by(
        self, lm: LanguageModel, *, tokens: int, folder: Path | None = None, progress: Progress | None = None
    ) -> ModelTexts:
        """The corpus of this model. Its texts are drawn when they are first read.

        Args:
            tokens: the texts have at least this many tokens together.
            folder: keeps the texts for later passes, over other layers; None keeps nothing.
            progress: called with the numbers of tokens drawn and to draw.
        """
        return ModelTexts(lm=lm, settings=self, tokens=tokens, folder=folder, progress=progress)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelTexts:
    """The sampled texts of one model, as a `romexp.stats.fit.Corpus`. For the fields see `SampledTexts.written_by`."""

    lm: LanguageModel
    settings: SampledTexts
    tokens: int
    folder: Path | None = None
    progress: Progress | None = None

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The settings that decide the texts. The model also does; cache keys contain its digest separately."""
        settings = {"length": self._length, "top_k": self.settings.top_k, "seed": self.settings.seed}
        return {"kind": "sampled", "tokens": self.tokens} | settings

    def load(self) -> Sequence[str]:
        """All texts. They are drawn at the first call, unless the folder has them.

        Raises:
            ConfigError: the model writes nothing but end-of-text tokens.
            DataError: the texts cannot be stored, or the stored texts cannot be read.
        """
        return self._texts

    @property
    def _length(self) -> int:
        return min(self.settings.length, context_length(self.lm))

    @cached_property
    def _texts(self) -> Sequence[str]:
        if self.folder is None:
            return list(self._draw())
        key = key_of({"model_digest": self.lm.cache_key, **self.provenance})
        path = self.folder / f"sampled_texts_{key}.json"
        try:
            write_once(path, lambda: json.dumps(list(self._draw())) + "\n")
            texts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"covariance.cache_dir: cannot store or read {path}: {error}") from error
        return [str(text) for text in texts]

    def _draw(self) -> Iterator[str]:
        """Draw texts until they have enough tokens. Text i depends on the seed and on i only."""
        _log.info("%s writes %s tokens of text, then reads them for second moments", self.lm.name, f"{self.tokens:,}")
        sampler = Sampler(max_length=self._length, top_k=self.settings.top_k)
        done = drawn = 0
        while done < self.tokens:
            count = int((self.tokens - done) * SPARE / (self._length - 1)) + 1
            numbers = range(drawn, drawn + count)
            seeds = [derive_seed(self.settings.seed, "second moment texts", i) for i in numbers]
            report = partial(self._report, done) if self.progress else None
            texts = raise_first_error(generate(self.lm, [""] * count, sampler=sampler, seeds=seeds, progress=report))
            lengths = [len(ids) for ids in self.lm.tokenizer(texts)["input_ids"]]
            if not sum(lengths):
                raise ConfigError(f"covariance=sampled: {self.lm.name} wrote {count} texts, and all of them are empty")
            done, drawn = done + sum(lengths), drawn + count
            yield from texts

    def _report(self, before: int, drawn: int, total: int) -> None:
        """Report tokens drawn in a round, of which some are spare, as a share of the tokens that were missing."""
        if self.progress:
            self.progress(before + (self.tokens - before) * drawn // max(1, total), self.tokens)


def first_half(progress: Progress) -> Progress:
    """Report tokens as they are drawn. As many will be measured, so the work is twice as large."""
    return lambda done, total: progress(done, None if total is None else 2 * total)


def second_half(progress: Progress) -> Progress:
    """Report tokens as they are measured. As many were drawn before."""
    return lambda done, total: progress(done + (total or 0), None if total is None else 2 * total)
