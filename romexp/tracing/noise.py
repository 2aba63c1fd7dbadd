"""The noise that is put on the embeddings of the subject (docs/method.md §2.1, §2.3)."""

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
"""Number of texts whose token embeddings give mean and covariance of `m` and `t…` noise."""

CHI_SQUARE_DRAWS = 1000
"""Size of the authors' table of χ² draws. A prompt that needs more noise vectors is refused."""


class Noise(Protocol):
    """A distribution of noise for the embeddings of corrupted tokens."""

    def draw(self, random: np.random.RandomState, shape: tuple[int, int, int]) -> torch.Tensor:
        """Draw noise of shape (samples × tokens × hidden size) in float64 from the generator `random`."""
        ...

    def describe(self) -> str:
        """Kind and scale as text, for the manifest of a run."""
        ...


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """scale · z with z ~ N(0, 1)."""

    scale: float

    def draw(self, random: np.random.RandomState, shape: tuple[int, int, int]) -> torch.Tensor:
        return torch.from_numpy(random.randn(*shape)) * self.scale

    def describe(self) -> str:
        return f"{self.scale!r} · N(0, 1)"


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """scale · z with z ~ U(-1, 1). The scale is absolute, not a multiple of σ."""

    scale: float

    def draw(self, random: np.random.RandomState, shape: tuple[int, int, int]) -> torch.Tensor:
        return torch.from_numpy(random.uniform(-1, 1, shape)) * self.scale

    def describe(self) -> str:
        return f"{self.scale!r} · U(-1, 1)"


@dataclass(frozen=True, kw_only=True, eq=False)
class MultivariateGaussian:
    """Noise with the mean and the covariance of the token embeddings of some texts. The mean is part of the noise.

    Attributes:
        mean: (hidden size) float64.
        factor: V √S for the covariance V S Vᵀ (hidden size × hidden size) float64.
        student: degrees of freedom ν for a Student t distribution; None for a Gaussian.
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
            raise ConfigError(f"tracer.noise: Student noise has {CHI_SQUARE_DRAWS} draws, but a prompt needs {count}")
        chi_square = np.random.RandomState(2).chisquare(self.student, CHI_SQUARE_DRAWS)[:count]
        # The usual factor ν is replaced by ν - 2, so that the covariance equals that of the Gaussian.
        return noise * torch.from_numpy(np.sqrt((self.student - 2) / chi_square)).reshape(*shape[:2], 1)

    def describe(self) -> str:
        kind = "multivariate Gaussian" if self.student is None else f"multivariate Student t, {self.student:g} degrees"
        return f"{kind} of the embeddings"


class NoiseTexts(Protocol):
    """A source of texts, from which multivariate noise is estimated."""

    def texts(self) -> Iterable[str]: ...


def reads_corpus(code: str | float) -> bool:
    """True if the noise of this code depends on a corpus (`m`, `t…`)."""
    return str(code).strip()[:1] in ("m", "t")


def make_noise(lm: LanguageModel, code: str | float, *, subjects: Iterable[str], corpus: Iterable[str]) -> Noise:
    """The noise of a code (docs/method.md §2.3): a number, `s`, `s3`, `u0.4`, `m` or `t5`.

    Args:
        subjects: the subjects over which σ is measured; read only for `s…`.
        corpus: texts, of which the first `NOISE_TEXTS` give mean and covariance; read only for `m` and `t…`.

    Raises:
        ConfigError: the code is unknown, ν ≤ 2, there are no subjects, or the texts have fewer than two tokens.
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
    """σ, the standard deviation (divisor N - 1) over all entries of the token embeddings of all subjects.

    Each subject is tokenized alone. Subjects that occur several times count several times.

    Raises:
        ConfigError: there are no subjects.
    """
    if not subjects:
        raise ConfigError("tracer.noise: there are no subjects over which σ could be measured")
    ids = [token for encoding in encode(lm.tokenizer, subjects) for token in encoding.ids]
    embedding = lm.module(lm.architecture.embedding)
    return float(embedding(torch.tensor([ids], device=lm.device)).float().std())


@torch.no_grad()
def _multivariate(lm: LanguageModel, corpus: Iterable[str], *, student: float | None) -> MultivariateGaussian:
    """Measure mean and covariance of the token embeddings of the texts, in float64."""
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
