"""Cutting work into batches that fit a token budget, and smaller ones where memory runs out."""

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
    """One result an item, in the items' order, with `work` called on batches of items of similar length.

    Args:
        work: takes some items, returns one result each.
        lengths: tokens of each item.
        max_tokens: tokens of a batch, padding included (see `by_length`).

    Raises:
        torch.OutOfMemoryError: a single item does not fit the device.
    """
    found = run_groups(work, items, by_length(lengths, max_tokens=max_tokens))
    return [found[i] for i in range(len(items))]


def run_groups(
    work: Callable[[list[Item]], Sequence[Result]], items: Sequence[Item], groups: Sequence[Sequence[int]]
) -> dict[int, Result]:
    """Results by the item's position, with `work` called on each group of positions.

    Raises:
        torch.OutOfMemoryError: a single item does not fit the device.
    """
    found: dict[int, Result] = {}
    for group in groups:
        found.update(zip(group, split_on_oom(work, [items[i] for i in group]), strict=True))
    return found


def by_length(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Indices grouped so that (longest × rows) of a group stays within `max_tokens`; shortest texts first.

    A text longer than the budget gets a group of its own. Texts of equal length keep their order.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        # Sorted, so the newcomer is the longest of its group.
        if groups and lengths[index] * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def split_on_oom(work: Callable[[list[Item]], Sequence[Result]], items: list[Item]) -> list[Result]:
    """`work(items)`, in halves as often as the device runs out of memory.

    Raises:
        torch.OutOfMemoryError: a single item does not fit.
    """
    try:
        return list(work(items))
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    gc.collect()  # the frames of the failed attempt still hold its tensors, in reference cycles
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    middle = len(items) // 2
    return split_on_oom(work, items[:middle]) + split_on_oom(work, items[middle:])
