"""Corruption: noise on the embeddings of the subject (docs/method.md §2.1, §2.3).

The generator is numpy's `RandomState(1)`, made anew for every prompt, so that equal shapes get equal noise: the
authors' stream. A seed of its own for every fact is the variant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode

NOISE_TEXTS = 1000
"""Texts whose embeddings are measured for `m` and `t…` noise."""

CHI_SQUARE_DRAWS = 1000
"""Size of the authors' table of χ² draws; more noise vectors than this in one prompt are refused."""


class Noise(Protocol):
    """What is added to the embeddings of the corrupted tokens."""

    def draw(self, random: np.random.RandomState, shape: tuple[int, int, int]) -> torch.Tensor:
        """Noise (samples × tokens × hidden size), float64, advancing `random`."""
        ...

    def describe(self) -> str:
        """Kind and scale, for a manifest."""
        ...


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """scale · z, z ~ N(0, 1)."""

    scale: float

    def draw(self, random: np.random.RandomState, shape: tuple[int, int, int]) -> torch.Tensor:
        return torch.from_numpy(random.randn(*shape)) * self.scale

    def describe(self) -> str:
        return f"{self.scale!r} · N(0, 1)"


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """scale · z, z ~ U(-1, 1). The scale is absolute, not a multiple of σ."""

    scale: float

    def draw(self, random: np.random.RandomState, shape: tuple[int, int, int]) -> torch.Tensor:
        return torch.from_numpy(random.uniform(-1, 1, shape)) * self.scale

    def describe(self) -> str:
        return f"{self.scale!r} · U(-1, 1)"


@dataclass(frozen=True, kw_only=True, eq=False)
class MultivariateGaussian:
    """Noise with the mean and covariance of the token embeddings of a text sample; the mean is part of the noise.

    Attributes:
        mean: (hidden size) float64.
        factor: (hidden size × hidden size) float64, V √S of the covariance V S Vᵀ.
        student: degrees of freedom ν of a Student t with the same covariance; None for the Gaussian.
    """

    mean: torch.Tensor
    factor: torch.Tensor
    student: float | None = None

    def draw(self, random: np.random.RandomState, shape: tuple[int, int, int]) -> torch.Tensor:
        z = torch.from_numpy(random.randn(*shape))
        noise = self.mean + z @ self.factor.T
        if self.student is None:
            return noise
        count = shape[0] * shape[1]
        if count > CHI_SQUARE_DRAWS:
            raise ConfigError(f"tracer.noise: Student noise has {CHI_SQUARE_DRAWS} draws, this prompt needs {count}")
        chi_square = np.random.RandomState(2).chisquare(self.student, CHI_SQUARE_DRAWS)[:count]
        # ν - 2, not ν: so the covariance is that of the Gaussian.
        return noise * torch.from_numpy(np.sqrt((self.student - 2) / chi_square)).reshape(*shape[:2], 1)

    def describe(self) -> str:
        kind = "multivariate Gaussian" if self.student is None else f"multivariate Student t, {self.student:g} degrees"
        return f"{kind} of the embeddings"


def reads_corpus(code: str | float) -> bool:
    """Does the noise that a code names depend on a corpus (`m`, `t…`)?"""
    return str(code).strip()[:1] in ("m", "t")


def make_noise(lm: LanguageModel, code: str | float, *, subjects: Iterable[str], corpus: Iterable[str]) -> Noise:
    """The noise that a code names (docs/method.md §2.3): a number, `s`, `s3`, `u0.4`, `m`, `t5`.

    Args:
        subjects: over which σ is measured, for `s…`; read only then.
        corpus: the first `NOISE_TEXTS` texts' token embeddings are measured, for `m` and `t…`; read only then.

    Raises:
        ConfigError: an unknown code, or ν ≤ 2.
    """
    text = str(code).strip()
    match = re.fullmatch(r"([sumt]?)(\d*\.?\d*(?:[eE][-+]?\d+)?)", text)
    if not match or not text:
        raise ConfigError(f"tracer.noise: {code!r} is none of a number, s3 (3σ), u0.4 (uniform), m, t5 (Student)")
    kind, number = match.groups()
    try:
        value = float(number) if number else 1.0
    except ValueError as error:
        raise ConfigError(f"tracer.noise: {number!r} in {code!r} is not a number") from error
    if kind == "":
        return Gaussian(scale=value)
    if kind == "s":
        return Gaussian(scale=value * embedding_std(lm, list(subjects)))
    if kind == "u":
        return Uniform(scale=value)
    if kind == "t" and value <= 2:
        raise ConfigError(f"tracer.noise: {code!r}: Student noise needs more than 2 degrees of freedom")
    return _multivariate(lm, islice(corpus, NOISE_TEXTS), student=value if kind == "t" else None)


@torch.no_grad()
def embedding_std(lm: LanguageModel, subjects: Sequence[str]) -> float:
    """σ: unbiased deviation over all entries of the token embeddings of all subjects, each alone, repeats kept.

    Raises:
        ConfigError: no subjects.
    """
    if not subjects:
        raise ConfigError("tracer.noise: no subjects to measure the deviation of embeddings over")
    ids = [token for encoding in encode(lm.tokenizer, subjects) for token in encoding.ids]
    embedding = lm.module(lm.architecture.embedding)
    return float(embedding(torch.tensor([ids], device=lm.device)).float().std())


@torch.no_grad()
def _multivariate(lm: LanguageModel, corpus: Iterable[str], *, student: float | None) -> MultivariateGaussian:
    embedding = lm.module(lm.architecture.embedding)
    d = lm.hidden_size
    count, total, square = 0, torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for encoding in encode(lm.tokenizer, list(corpus)):
        if encoding.ids:
            x = embedding(torch.tensor([encoding.ids], device=lm.device))[0].to("cpu", torch.float64)
            count, total, square = count + len(x), total + x.sum(0), square + x.T @ x
    if count < 2:
        raise ConfigError("tracer.noise: the corpus for m and t noise has fewer than two tokens")
    mean = total / count
    covariance = (square - count * torch.outer(mean, mean)) / (count - 1)
    values, vectors = torch.linalg.eigh(covariance)
    return MultivariateGaussian(mean=mean, factor=vectors * values.clamp(min=0).sqrt(), student=student)
