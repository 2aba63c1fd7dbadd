"""Attention on a CPU reads keys and values that query heads share in place; numbers and gradients stay."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from transformers.integrations import sdpa_attention

from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.grouped_heads import without_copies
from romexp.lm.model import LanguageModel

SWITCH = "TRANSFORMERS_SDPA_FORCE_GQA"
ROWS = [Row.text([5, 9, 33, 7, 20, 11]), Row.text([8, 2, 30])]


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each time that keys or values are copied for query heads."""
    made: list[int] = []
    real = sdpa_attention.repeat_kv

    def counted(states: torch.Tensor, n: int) -> torch.Tensor:
        made.append(n)
        return real(states, n)

    monkeypatch.setattr(sdpa_attention, "repeat_kv", counted)
    monkeypatch.delenv(SWITCH, raising=False)
    return made


def with_gradient(lm: LanguageModel, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """States after the final norm at the texts' own tokens, and the gradient of a sum of them by what block 1 gets."""
    inputs = make_inputs(lm, rows)
    with torch.no_grad():
        hidden = run_blocks(lm, inputs, stop=1)
    hidden.requires_grad_(True)
    with torch.enable_grad():
        states = run_blocks(lm, inputs, start=1, hidden=hidden)
        own = torch.cat([states[i, : len(row)] for i, row in enumerate(rows)])
        own[:, :7].sum().backward()
    assert hidden.grad is not None
    return own.detach(), hidden.grad


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_without_copies_the_numbers_are_the_same(
    tiny_factory: Callable[..., LanguageModel], copies: list[int], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    lm = tiny_factory(family)
    found = with_gradient(lm, ROWS)
    assert not copies
    assert SWITCH not in os.environ
    monkeypatch.setenv(SWITCH, "0")  # who sets the switch is obeyed
    expected = with_gradient(lm, ROWS)
    assert copies
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert float(expected[1].norm()) > 1e-3


def test_gpus_and_single_tokens_have_no_need_of_it() -> None:
    for device, n_queries, switched in (("cpu", 2, True), ("cpu", 1, False), ("cuda", 2, False)):
        with without_copies(torch.device(device), n_queries=n_queries):
            assert (SWITCH in os.environ) is switched


def test_it_ends_also_after_an_error() -> None:
    with pytest.raises(RuntimeError), without_copies(torch.device("cpu"), n_queries=2):
        raise RuntimeError
    assert SWITCH not in os.environ
