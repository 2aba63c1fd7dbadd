"""Cutting work into batches that fit a token budget, and smaller ones where memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def by_length(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Indices grouped so that (longest × rows) of a group stays within `max_tokens`; shortest texts first.

    A text longer than the budget gets a group of its own.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        # Sorted, so the newcomer is the longest of its group.
        if groups and lengths[index] * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def halving(work: Callable[[Sequence[int]], list[T]], items: Sequence[int]) -> list[T]:
    """`work(items)`, split in halves as often as the device runs out of memory.

    Raises:
        torch.OutOfMemoryError: a single item does not fit.
    """
    try:
        return work(items)
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    gc.collect()  # tensors of the failed attempt are still held by its frames' cycles
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    middle = len(items) // 2
    return halving(work, items[:middle]) + halving(work, items[middle:])
