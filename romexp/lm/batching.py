"""Splits work into batches that fit a token budget, and halves a batch when the device runs out of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def batched(
    work: Callable[[list[Item]], Sequence[Result]],
    items: Sequence[Item],
    lengths: Sequence[int],
    *,
    max_tokens: int,
) -> list[Result]:
    """Call `work` on batches of items of similar length, and return one result per item, in the items' order.

    Args:
        work: takes a list of items and returns one result for each.
        lengths: the number of tokens of each item.
        max_tokens: the token budget of a batch, padding included (see `by_length`).

    Raises:
        torch.OutOfMemoryError: a single item does not fit into the device's memory.
    """
    found = run_groups(work, items, by_length(lengths, max_tokens=max_tokens))
    return [found[i] for i in range(len(items))]


def run_groups(
    work: Callable[[list[Item]], Sequence[Result]], items: Sequence[Item], groups: Sequence[Sequence[int]]
) -> dict[int, Result]:
    """Call `work` on the items of each group of positions, and return the results by position.

    Raises:
        torch.OutOfMemoryError: a single item does not fit into the device's memory.
    """
    found: dict[int, Result] = {}
    for group in groups:
        found.update(zip(group, split_on_oom(work, [items[i] for i in group]), strict=True))
    return found


def by_length(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Group indices so that (longest length × number of rows) of each group is at most `max_tokens`.

    The shortest texts come first, and texts of equal length keep their order. A text longer than the budget gets a
    group of its own.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        # The lengths ascend, so this text is the longest of its group.
        if groups and lengths[index] * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def split_on_oom(work: Callable[[list[Item]], Sequence[Result]], items: list[Item]) -> list[Result]:
    """The result of `work(items)`. When the device runs out of memory, the items are split into halves and tried again.

    Raises:
        torch.OutOfMemoryError: a single item does not fit into the device's memory.
    """
    try:
        return list(work(items))
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    # Reference cycles still keep the tensors of the failed attempt alive.
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    middle = len(items) // 2
    return split_on_oom(work, items[:middle]) + split_on_oom(work, items[middle:])
