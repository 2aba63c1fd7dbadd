"""A delta that several rows share is never copied for each of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from delta_cases import dense, low_rank, memory, one_by_one, run, some_ids
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from romexp.lm.apply_delta import overlay, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta


@contextmanager
def result_sizes() -> Iterator[list[int]]:
    """Collects how many elements every tensor has that an operation inside the context returns.

    A view counts as what it looks at: an expanded one takes no memory of its own.
    """
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            sizes.extend(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in tensors)
            return result

    with Watch():
        yield sizes


class TestMemory:
    """What many rows have is held once: an evaluator gives one delta to some 50 rows, and those of KE and MEND have
    ranks near the width.
    """

    ROWS, RANK, LENGTH = 50, 1000, 2

    @pytest.fixture
    def lm(self, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
        return tiny_factory("gpt2", dtype=torch.float64)

    def largest(self, lm: LanguageModel, rows: Sequence[WeightDelta | None]) -> int:
        """The largest tensor of a forward pass, which must give what the written weights give."""
        ids = some_ids(lm, len(rows), self.LENGTH)
        with result_sizes() as sizes, overlay(lm, rows):
            together = run(lm, ids)
        torch.testing.assert_close(together, one_by_one(lm, rows, ids), atol=1e-9, rtol=1e-9)
        return max(sizes)

    def test_a_delta_of_many_rows_is_never_copied_for_each(self, lm: LanguageModel) -> None:
        """A copy for each row would have rows × in × rank elements, 3.2 million here."""
        name = memory(lm, 1)
        copies = self.ROWS * weight_in_out(lm, name).shape[0] * self.RANK
        one, other = (WeightDelta(terms={name: low_rank(lm, name, self.RANK)}) for _ in range(2))
        assert self.largest(lm, [one] * self.ROWS) < copies / 10
        mixed: list[WeightDelta | None] = [one, other] * (self.ROWS // 2) + [None]
        random.shuffle(mixed)
        assert self.largest(lm, mixed) < copies / 10
        # A control: deltas of which each row has its own are stacked, and that is seen.
        own = [one.to(device="cpu") for _ in range(self.ROWS)]
        assert self.largest(lm, own) >= copies

    def test_a_dense_term_of_many_rows_is_never_copied_for_each(self, lm: LanguageModel) -> None:
        name = memory(lm, 1)
        delta = WeightDelta(terms={name: dense(lm, name)})
        copies = self.ROWS * weight_in_out(lm, name).numel()
        assert self.largest(lm, [delta, None] + [delta] * (self.ROWS - 1)) < copies
