"""A corpus that the model writes itself, to measure its second moments without a download."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from romexp.bounds import check_bounds
from romexp.errors import ConfigError, raise_first_error
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.forward import context_length
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler, generate
from romexp.seeds import derive_seed

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SampledTexts:
    """Texts sampled from the model by top-k sampling (option `sampled` of `covariance`).

    The paper measures on Wikipedia instead; these texts need no download.

    Attributes:
        tokens_per_key: number of sampled tokens divided by D, the width of a key: C is measured on about
            `tokens_per_key` · D tokens.
        length: tokens of a text.
        top_k: number of most likely tokens among which each token is drawn.
        seed: seed of the sampling.

    Raises:
        ConfigError: a number is below 1.
    """

    tokens_per_key: int = 12
    length: int = 100
    top_k: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.tokens_per_key, self.length, self.top_k) < 1:
            raise ConfigError("covariance.corpus: tokens_per_key, length and top_k must be at least 1")
        check_bounds(self, "covariance.corpus", from_0=("seed",))

    def written_by(self, lm: LanguageModel) -> ModelTexts:
        """The corpus of this model. Its texts are sampled when they are first read."""
        return ModelTexts(lm=lm, settings=self)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelTexts:
    """The sampled texts of one model, as a `romexp.stats.fit.Corpus`."""

    lm: LanguageModel
    settings: SampledTexts

    @property
    def count(self) -> int:
        """Number of texts, chosen for the widest MLP of the model."""
        architecture = self.lm.architecture
        widths = [
            weight_in_out(self.lm, f"{architecture.mlp_out_name(layer)}.weight").shape[0]
            for layer in range(self.lm.n_layers)
        ]
        return -(-self.settings.tokens_per_key * max(widths) // self._length)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The settings that decide the texts. The model also does; cache keys contain its digest separately."""
        settings = self.settings
        return {"kind": "sampled", "count": self.count, "length": self._length, "top_k": settings.top_k} | {
            "seed": settings.seed
        }

    def texts(self) -> Iterator[str]:
        """An iterator over all texts."""
        return iter(self.load())

    def load(self) -> Sequence[str]:
        """All texts. They are sampled at the first call."""
        return self._texts

    @property
    def _length(self) -> int:
        return min(self.settings.length, context_length(self.lm))

    @cached_property
    def _texts(self) -> Sequence[str]:
        _log.info(
            "%s writes %d texts of %d tokens to measure second moments on", self.lm.name, self.count, self._length
        )
        sampler = Sampler(max_length=self._length, top_k=self.settings.top_k)
        seeds = [derive_seed(self.settings.seed, "second moment texts", i) for i in range(self.count)]
        return raise_first_error(generate(self.lm, [""] * self.count, sampler=sampler, seeds=seeds))
