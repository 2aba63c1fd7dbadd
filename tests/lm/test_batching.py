"""Batches hold everything once, stay within their budget and give results in the items' order; running out of memory
halves them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

import pytest
import torch

from romexp.lm import batching
from romexp.lm.batching import batched, by_length, run_groups, split_on_oom


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


def cost(groups: Sequence[Sequence[int]], lengths: Sequence[int], per_pass: int) -> int:
    return sum(per_pass + max(lengths[i] for i in group) * len(group) for group in groups)


def all_groupings(order: list[int]) -> Iterator[list[list[int]]]:
    """All ways to cut a list into consecutive parts."""
    for n in range(1, len(order)):
        for rest in all_groupings(order[n:]):
            yield [order[:n], *rest]
    yield [order]


def test_no_other_groups_cost_less() -> None:
    """Against every way to cut the sorted texts, with a budget that allows all of them."""
    merged = several = 0
    for _ in range(100):
        lengths = [random.randint(1, 12) for _ in range(random.randint(1, 8))]
        per_pass = random.randint(0, 15)
        groups = by_length(lengths, max_tokens=100, per_pass=per_pass)
        order = [i for group in groups for i in group]
        assert cost(groups, lengths, per_pass) == min(cost(g, lengths, per_pass) for g in all_groupings(order))
        merged += len(groups) < len(set(lengths))
        several += len(groups) > 1
    assert merged > 10  # controls: padding is chosen where it is cheap, and only there
    assert several > 10


def test_a_budget_divides_texts_evenly() -> None:
    assert by_length([3] * 10, max_tokens=12) == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert by_length([50, 60], max_tokens=10) == [[0], [1]]


def test_hundreds_of_different_lengths_are_grouped_at_once() -> None:
    """Twenty thousand texts; a programme over all pairs of texts would take minutes."""
    lengths = [1 + i % 500 for i in range(20_000)]
    start = time.process_time()
    groups = by_length(lengths, max_tokens=1024)
    assert time.process_time() - start < 2
    assert sum(map(len, groups)) == len(lengths)


def limited(limit: int, calls: list[int]):  # type: ignore[no-untyped-def]
    """Work that runs out of memory on more than `limit` items."""

    def work(items: Sequence[int]) -> list[int]:
        calls.append(len(items))
        if len(items) > limit:
            raise torch.OutOfMemoryError("too much")
        return [10 * item for item in items]

    return work


class TestSplitOnOom:
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    def test_gives_everything_in_order(self, limit: int) -> None:
        calls: list[int] = []
        assert split_on_oom(limited(limit, calls), list(range(7))) == [10 * i for i in range(7)]
        assert calls[0] == 7
        assert len([n for n in calls if n <= limit]) == (1 if limit >= 7 else len(calls) // 2 + 1)

    def test_a_single_item_that_does_not_fit_is_an_error(self) -> None:
        with pytest.raises(torch.OutOfMemoryError):
            split_on_oom(limited(0, []), [1, 2])

    def test_other_errors_are_not_tried_again(self) -> None:
        calls: list[int] = []

        def work(items: Sequence[int]) -> list[int]:
            calls.append(len(items))
            raise RuntimeError("something else")

        with pytest.raises(RuntimeError, match="something else"):
            split_on_oom(work, [1, 2, 3])
        assert calls == [3]


class TestBatched:
    def test_results_stand_in_the_items_order_and_calls_stay_within_the_budget(self) -> None:
        """The lengths are random, so that batches hold the items in another order than they are given in."""
        disordered = 0
        for _ in range(50):
            lengths = [random.randint(0, 30) for _ in range(random.randint(0, 40))]
            budget = random.randint(1, 120)
            seen: list[tuple[int, int]] = []

            def work(
                items: list[tuple[int, int]], seen: list[tuple[int, int]] = seen, budget: int = budget
            ) -> list[str]:
                assert len(items) == 1 or max(length for _, length in items) * len(items) <= budget
                seen += items
                return [f"result {number}" for number, _ in items]

            items = list(enumerate(lengths))
            assert batched(work, items, lengths, max_tokens=budget) == [f"result {i}" for i in range(len(items))]
            assert sorted(seen) == items, "every item is worked on once"
            disordered += seen != items
        assert disordered > 40  # a control: the order had to be restored

    def test_a_batch_that_does_not_fit_is_halved_and_the_order_is_kept(self) -> None:
        lengths = [5, 1, 4, 2, 3, 6, 1, 2]
        whole: list[int] = []
        split: list[int] = []
        assert batched(limited(8, whole), range(8), lengths, max_tokens=100) == [10 * i for i in range(8)]
        assert batched(limited(3, split), range(8), lengths, max_tokens=100) == [10 * i for i in range(8)]
        assert whole == [8]
        assert split == [8, 4, 2, 2, 4, 2, 2]

    def test_an_item_that_does_not_fit_alone_is_an_error(self) -> None:
        with pytest.raises(torch.OutOfMemoryError):
            batched(limited(0, []), [1, 2, 3], [1, 1, 1], max_tokens=10)

    def test_nothing_to_do_calls_nothing(self) -> None:
        calls: list[int] = []
        assert batched(limited(9, calls), [], [], max_tokens=10) == []
        assert calls == []

    def test_work_must_give_one_result_an_item(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            batched(lambda items: items[1:], [1, 2, 3], [1, 1, 1], max_tokens=10)


def test_groups_may_leave_items_out() -> None:
    """What is in no group has no result; the others have theirs by position."""
    calls: list[int] = []
    assert run_groups(limited(2, calls), [7, 8, 9, 6], [[3, 0, 2]]) == {3: 60, 0: 70, 2: 90}
    assert calls == [3, 1, 2]
