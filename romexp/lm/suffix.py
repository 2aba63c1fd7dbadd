"""Passes over the last tokens ("suffix") of texts whose earlier run is stored (docs/method.md §9.3).

The stored run has the inputs of all blocks, and all keys and values. A suffix may start at any token and any block; it
attends to the stored keys and values of the tokens before it. Only the last token of each row is read. So the last
block computes keys and values of all tokens, but queries, attention and MLP of the last token only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from romexp.lm.forward import BlockInputs, KeysAndValues, additive_mask, run_blocks
from romexp.lm.model import LanguageModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Suffixes:
    """A batch of suffixes of stored texts.

    Attributes:
        cache: keys and values of the stored run, by layer (texts × heads × tokens × head size).
        source: the index of each row's text in the stored run (rows) int64. Several rows may have the same text.
        starts: position of each row's first token in its text (rows) int64.
        lengths: number of tokens of each row, at least 1 (rows) int64.
        width: the largest of `lengths`. Columns beyond a row's length are padding.
        before: the largest of `starts`, which is the number of columns of the prefix.
    """

    cache: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    source: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    width: int
    before: int

    def states(self, stored: torch.Tensor) -> torch.Tensor:
        """Select the rows' tokens: (texts × tokens × features) → (rows × width × features).

        The content of padding columns has no meaning.
        """
        n_tokens = stored.shape[1]
        columns = self.starts[:, None] + torch.arange(self.width, device=self.starts.device)
        places = self.source[:, None] * n_tokens + columns.clamp(max=n_tokens - 1)
        return stored.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)

    def select(self, rows: torch.Tensor) -> Suffixes:
        """The batch with only these rows."""
        return replace(self, source=self.source[rows], starts=self.starts[rows], lengths=self.lengths[rows])

    def first_only(self) -> Suffixes:
        """The same batch with only the first token of each row."""
        return replace(self, lengths=torch.ones_like(self.lengths), width=1)


def run_suffixes(lm: LanguageModel, rows: Suffixes, *, start: int, stop: int, hidden: torch.Tensor) -> torch.Tensor:
    """Run blocks `start` … `stop`-1 on the rows' tokens.

    Args:
        hidden: residual stream before block `start` (rows × width × hidden size).

    Returns:
        The residual stream after block `stop`-1, of the same shape.
    """
    return run_blocks(lm, _pass_inputs(lm, rows), start=start, stop=stop, hidden=hidden, cache=_prefix_cache(rows))


def last_states(lm: LanguageModel, rows: Suffixes, *, start: int, hidden: torch.Tensor) -> torch.Tensor:
    """Run blocks from `start` to the last one and the final norm, and return the state of each row's last token.

    Args:
        hidden: residual stream before block `start` (rows × width × hidden size).

    Returns:
        (rows × hidden size), the input of `logits`.
    """
    inputs, last_layer = _pass_inputs(lm, rows), lm.n_layers - 1
    row, last = torch.arange(len(rows.lengths), device=hidden.device), rows.lengths - 1
    if start > last_layer:
        return run_blocks(lm, inputs, start=start, hidden=hidden[row, last])
    if rows.width == 1:
        return run_blocks(lm, inputs, start=start, hidden=hidden, cache=_prefix_cache(rows))[:, 0]
    hidden = run_blocks(lm, inputs, start=start, stop=last_layer, hidden=hidden, cache=_prefix_cache(rows))
    try:
        # The cache ends this pass when it gets the keys and values. An attention module that does not use the cache
        # computes the whole block instead, which gives the same states.
        cache = _prefix_cache(rows, _StopAtKeysAndValues)
        return run_blocks(lm, inputs, start=last_layer, hidden=hidden, cache=cache)[row, last]
    except _KeysAndValuesFound as found:
        complete = _CompleteKeysAndValues(found.keys, found.values)
    mask = inputs.mask.expand(len(row), -1, -1, -1)[row, :, last][:, :, None]
    one = BlockInputs(ids=inputs.ids[:, :1], positions=inputs.positions[row, last][:, None], mask=mask)
    return run_blocks(lm, one, start=last_layer, hidden=hidden[row, last][:, None], cache=complete)[:, 0]


def _pass_inputs(lm: LanguageModel, rows: Suffixes) -> BlockInputs:
    """Positions and mask of the rows' tokens after their prefix.

    Padding columns come after a row's tokens and the mask is causal, so no token attends to padding.
    """
    device = rows.starts.device
    columns = torch.arange(rows.width, device=device)
    positions = (rows.starts[:, None] + columns).clamp(max=lm.max_positions - 1)
    own = torch.ones((rows.width, rows.width), dtype=torch.bool, device=device).tril()[None]
    before = torch.arange(rows.before, device=device)[None, None] < rows.starts[:, None, None]
    if bool(before.all()):  # All rows start at the same token, so they can share one mask.
        before = before[:1]
    allowed = torch.cat([before.expand(-1, rows.width, -1), own.expand(len(before), -1, -1)], dim=-1)
    # The hidden states are given, so the token ids do not matter.
    return BlockInputs(ids=torch.zeros_like(positions), positions=positions, mask=additive_mask(lm, allowed[:, None]))


def _prefix_cache(rows: Suffixes, kind: type[KeysAndValues] = KeysAndValues) -> KeysAndValues:
    """A cache with the keys and values of each row's own text."""
    return kind(prefix=rows.cache if rows.before else None, source=rows.source, width=rows.before)


class _CompleteKeysAndValues(KeysAndValues):
    """A cache that already holds the keys and values of all tokens, those of the pass included."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self._both = keys, values

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._both


class _StopAtKeysAndValues(KeysAndValues):
    """A cache that ends the pass, by an exception, as soon as it gets keys and values."""

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        raise _KeysAndValuesFound(*super().update(keys, values, layer_idx))


class _KeysAndValuesFound(Exception):
    """Carries the keys and values of prefix and pass out of the pass that `_StopAtKeysAndValues` ends."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
