"""Texts that a model writes itself, to measure its second moments on where no others are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from romexp.errors import ConfigError, raise_first_error
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.forward import context_length
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler, generate
from romexp.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class SampledTexts:
    """Texts drawn from the model's own distribution, cut to its most likely tokens (config option `sampled`).

    Not the paper's way, which measures on Wikipedia; but keys of the model's own texts need no download.

    Attributes:
        tokens_per_key: tokens drawn for each entry of a key: C of width D is measured on about this times D tokens.
        length: tokens of a text.
        top_k: most likely tokens that each one is drawn from.
        seed: of the draws.
    """

    tokens_per_key: int = 20
    length: int = 100
    top_k: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.tokens_per_key, self.length, self.top_k) < 1:
            raise ConfigError("covariance.corpus: tokens_per_key, length and top_k must be at least 1")

    def written_by(self, lm: LanguageModel) -> ModelTexts:
        """The texts of this model. Nothing is drawn before they are read."""
        return ModelTexts(lm=lm, settings=self)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelTexts:
    """The texts of one model: a corpus."""

    lm: LanguageModel
    settings: SampledTexts

    @property
    def count(self) -> int:
        """How many texts the widest MLP needs."""
        architecture = self.lm.architecture
        widths = [
            weight_in_out(self.lm, f"{architecture.mlp_out_name(layer)}.weight").shape[0]
            for layer in range(self.lm.n_layers)
        ]
        return -(-self.settings.tokens_per_key * max(widths) // self._length)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What decides the texts besides the model, which statistics are keyed by anyway."""
        settings = self.settings
        return {"kind": "sampled", "count": self.count, "length": self._length, "top_k": settings.top_k} | {
            "seed": settings.seed
        }

    def texts(self) -> Iterator[str]:
        """Every text."""
        return iter(self.load())

    def load(self) -> Sequence[str]:
        """The texts, drawn at the first call."""
        return self._texts

    @property
    def _length(self) -> int:
        return min(self.settings.length, context_length(self.lm))

    @cached_property
    def _texts(self) -> Sequence[str]:
        sampler = Sampler(max_length=self._length, top_k=self.settings.top_k)
        seeds = [derive_seed(self.settings.seed, "second moment texts", i) for i in range(self.count)]
        return raise_first_error(generate(self.lm, [""] * self.count, sampler=sampler, seeds=seeds))
