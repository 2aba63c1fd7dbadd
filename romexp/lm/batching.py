"""Splits work into batches by what passes cost, and halves a batch when the device runs out of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

PASS_TOKENS = 60
"""What a pass on a CPU costs before it computes anything, in tokens: every weight must be read. A product of n states
with a matrix of 576 × 1,536 takes about 0.55 ms + n · 0.0093 ms on one core, and larger matrices are alike.
"""
DEVICE_PASS_TOKENS = 512
"""The same on an accelerator, which also needs many tokens to be busy."""


def batched(
    work: Callable[[list[Item]], Sequence[Result]],
    items: Sequence[Item],
    lengths: Sequence[int],
    *,
    max_tokens: int,
    per_pass: int = PASS_TOKENS,
) -> list[Result]:
    """Call `work` on batches of items of similar length, and return one result per item, in the items' order.

    Args:
        work: takes a list of items and returns one result for each.
        lengths: the number of tokens of each item.
        max_tokens: the token budget of a batch, padding included (see `by_length`).
        per_pass: what a pass costs before it computes anything, in tokens (see `pass_tokens`).

    Raises:
        torch.OutOfMemoryError: a single item does not fit into the device's memory.
    """
    found = run_groups(work, items, by_length(lengths, max_tokens=max_tokens, per_pass=per_pass))
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


def pass_tokens(device: torch.device) -> int:
    """What a pass costs on a device before it computes anything, in tokens."""
    return PASS_TOKENS if device.type == "cpu" else DEVICE_PASS_TOKENS


def training_tokens(device: torch.device) -> int:
    """Number of tokens of a pass with gradients. On one core of a CPU a token costs least in passes of 300 to 500."""
    return 512 if device.type == "cpu" else 16384


def by_length(lengths: Sequence[int], *, max_tokens: int, per_pass: int = PASS_TOKENS) -> list[list[int]]:
    """Group texts of similar length, so that the time of all passes is as small as possible.

    A group costs `per_pass` + (longest length × number of rows), and its second part is at most `max_tokens`. So
    texts of different lengths share a group where padding costs less than one more pass. The shortest texts come
    first, and texts of equal length keep their order. A text longer than `max_tokens` gets a group of its own.

    Args:
        per_pass: what a pass costs before it computes anything, in tokens.

    Returns:
        The indices of the texts of each group.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    counts = [(length, len(list(same))) for length, same in groupby(lengths[i] for i in order)]
    groups: list[list[int]] = []
    start = 0
    for first, last in _cheapest_cuts(counts, max_tokens=max_tokens, per_pass=per_pass):
        n_rows = sum(count for _, count in counts[first:last])
        n_groups = _n_groups(n_rows, counts[last - 1][0], max_tokens)
        ends = [start + n_rows * (k + 1) // n_groups for k in range(n_groups)]
        for end in ends:
            groups.append(order[start:end])
            start = end
    return groups


def _n_groups(n_rows: int, longest: int, max_tokens: int) -> int:
    """The number of groups that this many rows need."""
    return -(-n_rows // max(1, max_tokens // max(1, longest)))


def _cheapest_cuts(counts: Sequence[tuple[int, int]], *, max_tokens: int, per_pass: int) -> list[tuple[int, int]]:
    """Cut texts into runs of similar length, by a dynamic programme: the least cost of the first k lengths follows from
    those of fewer lengths.

    Args:
        counts: pairs (length, number of texts) by ascending length.

    Returns:
        Pairs (first, last + 1) of indices of `counts`. The texts of each pair are padded to its last length.
    """
    least: list[tuple[float, int]] = [(0, 0)]  # for the first k lengths the least cost, and where their last run starts
    for end in range(1, len(counts) + 1):
        longest = counts[end - 1][0]
        best: tuple[float, int] | None = None
        n_rows = 0
        for start in range(end - 1, -1, -1):
            length, count = counts[start]
            if (longest - length) * count > per_pass:
                break  # A pass of their own is cheaper for these texts, and for all shorter ones.
            n_rows += count
            cost = least[start][0] + per_pass * _n_groups(n_rows, longest, max_tokens) + longest * n_rows
            if best is None or cost < best[0]:
                best = cost, start
        assert best is not None
        least.append(best)
    runs: list[tuple[int, int]] = []
    end = len(counts)
    while end:
        runs.append((least[end][1], end))
        end = least[end][1]
    return runs[::-1]


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
