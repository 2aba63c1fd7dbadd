"""Precision of matrix products: torch's setting holds around one model's work, and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel, PretrainedModel, with_precision
from romexp.lm.precision import PRECISIONS, has_effect, in_own_precision, matmul_precision
from romexp.stats.covariance import Covariance


def state() -> tuple[str, str]:
    """What torch has for CUDA and for the CPU."""
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision  # type: ignore


@pytest.fixture(autouse=True)
def _torch_as_before() -> Iterator[None]:
    before = state()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision = before  # type: ignore


@pytest.fixture(scope="module")
def lm(tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    return tiny_factory("gpt2")


def test_the_setting_holds_inside_and_not_afterwards() -> None:
    before = state()
    inside = []
    for wanted in PRECISIONS:
        with matmul_precision(wanted):
            assert torch.get_float32_matmul_precision() == wanted
            inside.append(state())
        assert state() == before
    assert len(set(inside)) == 3  # the control: torch tells them apart


def test_an_error_and_an_inner_setting_change_nothing_outside() -> None:
    with matmul_precision("medium"):
        with pytest.raises(ZeroDivisionError), matmul_precision("highest"):
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "medium"


def test_what_a_caller_has_set_by_device_comes_back() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    before = state()
    with matmul_precision("highest"):
        assert state()[1] == "ieee"
    assert state() == before


def test_a_function_computes_with_the_setting_of_its_model(lm: LanguageModel) -> None:
    seen = []

    @in_own_precision
    def computing(lm: LanguageModel, name: str = "") -> str:
        seen.append(torch.get_float32_matmul_precision())
        return name

    medium = replace(lm, matmul_precision="medium")
    assert computing(medium, name="a") == "a"
    assert computing(lm=lm) == ""
    assert computing(lm=medium) == ""
    assert seen == ["medium", "highest", "medium"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_setting_without_effect_says_so(lm: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
    device = torch.device("cpu")
    for precision in ("high", "medium"):
        acts = has_effect(precision, device=device, dtype=torch.float32)
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            set_so = with_precision(lm, precision)
        assert set_so.matmul_precision == precision
        assert set_so.precision_has_effect is acts
        assert (f"model.matmul_precision={precision} has no effect here" in caplog.text) is not acts
    assert not has_effect("medium", device=device, dtype=torch.bfloat16), "weights are in bfloat16 anyway"
    assert not lm.precision_has_effect


def test_what_depends_on_the_numbers_is_kept_apart(lm: LanguageModel) -> None:
    medium, usual = replace(lm, matmul_precision="medium"), lm
    assert medium.digest == usual.digest == usual.cache_key, "the weights are the same, and old caches stay valid"
    assert medium.cache_key not in (usual.cache_key, replace(lm, matmul_precision="high").cache_key)
    covariance = Covariance(corpus=_NoCorpus())
    assert covariance.ingredients(medium, 1) == covariance.ingredients(usual, 1) | {"matmul_precision": "medium"}


class _NoCorpus:
    provenance = {"kind": "none"}  # noqa: RUF012

    def load(self) -> list[str]:
        return []


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="'tf32' is none of highest, high, medium"):
        PretrainedModel(path="none", matmul_precision="tf32").load()  # type: ignore[arg-type]
