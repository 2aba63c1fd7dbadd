from __future__ import annotations

import numpy as np
import pytest
import torch

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel
from romexp.tracing.noise import Gaussian, MultivariateGaussian, Uniform, embedding_std, make_noise

TEXTS = ("Steve Jobs was the founder of Apple.", "The Eiffel Tower is located in Paris.", "Anna plays the violin")
SUBJECTS = ("Anna", "Bob", "Eiffel Tower", "Anna")


def of(lm: LanguageModel, code: str | float):
    return make_noise(lm, code, subjects=SUBJECTS, corpus=TEXTS)


def big(noise, shape=(200, 50, 32)) -> torch.Tensor:
    return noise.draw(np.random.RandomState(1), shape)


def test_codes(tiny_gpt2: LanguageModel) -> None:
    sigma = embedding_std(tiny_gpt2, SUBJECTS)
    assert of(tiny_gpt2, "s") == Gaussian(scale=sigma)
    assert of(tiny_gpt2, "s3") == Gaussian(scale=3 * sigma)
    assert of(tiny_gpt2, 0.1) == of(tiny_gpt2, "0.1") == Gaussian(scale=0.1)
    assert of(tiny_gpt2, "u0.4") == Uniform(scale=0.4)


@pytest.mark.parametrize("code", ["", "x3", "s3s", "t2", "t1", "-1", "3s", "s..1"])
def test_other_codes_are_refused(tiny_gpt2: LanguageModel, code: str) -> None:
    with pytest.raises(ConfigError, match=r"tracer\.noise"):
        of(tiny_gpt2, code)


def test_sigma_is_the_deviation_of_all_entries_repeats_kept(tiny_gpt2: LanguageModel) -> None:
    table = tiny_gpt2.module(tiny_gpt2.architecture.embedding).weight
    ids = [i for s in SUBJECTS for i in tiny_gpt2.tokenizer(s)["input_ids"]]
    assert embedding_std(tiny_gpt2, SUBJECTS) == pytest.approx(float(table[ids].std()), rel=1e-5)
    once = embedding_std(tiny_gpt2, sorted(set(SUBJECTS)))
    assert once != pytest.approx(embedding_std(tiny_gpt2, SUBJECTS), rel=1e-6)
    with pytest.raises(ConfigError, match="subjects"):
        embedding_std(tiny_gpt2, [])


def test_the_stream_is_numpys_and_advances() -> None:
    random = np.random.RandomState(1)
    first = Gaussian(scale=2.0).draw(random, (2, 3, 4))
    second = Gaussian(scale=2.0).draw(random, (2, 3, 4))
    expected = np.random.RandomState(1)
    np.testing.assert_array_equal(first.numpy(), 2 * expected.randn(2, 3, 4))
    np.testing.assert_array_equal(second.numpy(), 2 * expected.randn(2, 3, 4))


def test_uniform_bounds() -> None:
    noise = big(Uniform(scale=0.4))
    assert noise.abs().max() <= 0.4
    assert float(noise.std()) == pytest.approx(0.4 / 3**0.5, rel=0.01)


@pytest.mark.parametrize("code", ["m", "t6"])
def test_multivariate_noise_has_the_embeddings_mean_and_covariance(tiny_gpt2: LanguageModel, code: str) -> None:
    table = tiny_gpt2.module(tiny_gpt2.architecture.embedding).weight.double()
    x = torch.cat([table[tiny_gpt2.tokenizer(t)["input_ids"]] for t in TEXTS])
    noise = of(tiny_gpt2, code)
    assert isinstance(noise, MultivariateGaussian)
    torch.testing.assert_close(noise.mean, x.mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(noise.factor @ noise.factor.T, torch.cov(x.T), rtol=0, atol=1e-6)
    draws = big(noise, (20, 50, 32)).reshape(-1, 32)
    assert len(draws) == 1000
    trace = float(torch.cov(draws.T).trace() / torch.cov(x.T).trace())
    assert trace == pytest.approx(1.0, abs=0.2)  # the t noise is scaled to the Gaussian's covariance


def test_student_noise_has_a_limited_table(tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="1000 draws"):
        big(of(tiny_gpt2, "t6"), (101, 10, 32))
