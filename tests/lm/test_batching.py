"""Batches hold everything once and stay within their budget; running out of memory halves them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from romexp.lm import batching
from romexp.lm.batching import by_length, halving


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full collection takes half a second when half the world is imported."""
    monkeypatch.setattr(batching.gc, "collect", lambda: 0)


def test_every_text_once_and_within_the_budget() -> None:
    for _ in range(100):
        lengths = [random.randint(0, 30) for _ in range(random.randint(0, 40))]
        budget = random.randint(1, 120)
        groups = by_length(lengths, max_tokens=budget)
        flat = [i for group in groups for i in group]
        assert sorted(flat) == list(range(len(lengths)))
        assert [lengths[i] for i in flat] == sorted(lengths)
        for group in groups:
            assert len(group) == 1 or max(lengths[i] for i in group) * len(group) <= budget


def test_groups_are_as_large_as_they_may_be() -> None:
    assert by_length([2, 9, 3, 3, 2], max_tokens=9) == [[0, 4, 2], [3], [1]]
    assert by_length([50, 60], max_tokens=10) == [[0], [1]]


def limited(limit: int, calls: list[int]):  # type: ignore[no-untyped-def]
    """Work that runs out of memory on more than `limit` items."""

    def work(items: Sequence[int]) -> list[int]:
        calls.append(len(items))
        if len(items) > limit:
            raise torch.OutOfMemoryError("too much")
        return [10 * item for item in items]

    return work


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_halving_gives_everything_in_order(limit: int) -> None:
    calls: list[int] = []
    assert halving(limited(limit, calls), list(range(7))) == [10 * i for i in range(7)]
    assert calls[0] == 7
    assert len([n for n in calls if n <= limit]) == (1 if limit >= 7 else len(calls) // 2 + 1)


def test_a_single_item_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        halving(limited(0, []), [1, 2])


def test_other_errors_are_not_tried_again() -> None:
    calls: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        calls.append(len(items))
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        halving(work, [1, 2, 3])
    assert calls == [3]
