"""Running on from stored states: the last tokens of texts, through the blocks above a layer, read at one column each.

What was stored is a run's block inputs and its keys and values. A suffix starts at any token and looks back at the keys
and values of the tokens before it (docs/method.md §9.3). Only one column of each row is read, so the last block makes
keys and values for all columns, but queries, attention and MLP for that one alone.
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
    """Where the rows of a batch begin and end in stored texts.

    Attributes:
        cache: the stored run's keys and values by layer (texts × heads × tokens × head size).
        source: the stored text of each row (rows) int64; texts may repeat.
        starts: first token of each row (rows) int64.
        lengths: tokens of each row, at least 1 (rows) int64.
        width: the largest of `lengths`; columns beyond a row's length are padding.
        before: the largest of `starts`: columns of the prefix.
    """

    cache: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    source: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    width: int
    before: int

    def states(self, stored: torch.Tensor) -> torch.Tensor:
        """The rows' own columns of (texts × tokens × features): (rows × width × features). Padding repeats the end."""
        n_tokens = stored.shape[1]
        columns = self.starts[:, None] + torch.arange(self.width, device=self.starts.device)
        places = self.source[:, None] * n_tokens + columns.clamp(max=n_tokens - 1)
        return stored.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)

    def first_only(self) -> Suffixes:
        """The first token of each row alone."""
        return replace(self, lengths=torch.ones_like(self.lengths), width=1)


def run_suffixes(lm: LanguageModel, rows: Suffixes, *, start: int, stop: int, hidden: torch.Tensor) -> torch.Tensor:
    """Blocks `start` … `stop`-1 on the rows' columns: (rows × width × hidden size), to and from the residual stream."""
    return run_blocks(lm, _pass(lm, rows), start=start, stop=stop, hidden=hidden, cache=_looking_back(rows))


def last_states(lm: LanguageModel, rows: Suffixes, *, start: int, hidden: torch.Tensor) -> torch.Tensor:
    """Each row's last token after blocks `start` … and the final norm: (rows × hidden size), ready for `logits`."""
    inputs, last_layer = _pass(lm, rows), lm.n_layers - 1
    row, last = torch.arange(len(rows.lengths), device=hidden.device), rows.lengths - 1
    if start > last_layer:
        return run_blocks(lm, inputs, start=start, hidden=hidden[row, last])
    if rows.width == 1:
        return run_blocks(lm, inputs, start=start, hidden=hidden, cache=_looking_back(rows))[:, 0]
    hidden = run_blocks(lm, inputs, start=start, stop=last_layer, hidden=hidden, cache=_looking_back(rows))
    try:
        # A model that does not ask the cache for its keys and values is run whole.
        return run_blocks(lm, inputs, start=last_layer, hidden=hidden, cache=_looking_back(rows, _Collect))[row, last]
    except _Collected as found:
        whole = _Whole(found.keys, found.values)
    mask = inputs.mask.expand(len(row), -1, -1, -1)[row, :, last][:, :, None]
    one = BlockInputs(ids=inputs.ids[:, :1], positions=inputs.positions[row, last][:, None], mask=mask)
    return run_blocks(lm, one, start=last_layer, hidden=hidden[row, last][:, None], cache=whole)[:, 0]


def _pass(lm: LanguageModel, rows: Suffixes) -> BlockInputs:
    """Positions and mask of the rows' columns behind their prefix. A padding column sees what is left of it and is seen
    by padding alone, so nothing of it is ever read."""
    device = rows.starts.device
    columns = torch.arange(rows.width, device=device)
    positions = (rows.starts[:, None] + columns).clamp(max=lm.max_positions - 1)
    own = torch.ones((rows.width, rows.width), dtype=torch.bool, device=device).tril()[None]
    before = torch.arange(rows.before, device=device)[None, None] < rows.starts[:, None, None]
    if bool(before.all()):  # one mask serves every row
        before = before[:1]
    allowed = torch.cat([before.expand(-1, rows.width, -1), own.expand(len(before), -1, -1)], dim=-1)
    # With hidden states given, ids are embedded but never read.
    return BlockInputs(ids=torch.zeros_like(positions), positions=positions, mask=additive_mask(lm, allowed[:, None]))


def _looking_back(rows: Suffixes, kind: type[KeysAndValues] = KeysAndValues) -> KeysAndValues:
    """A cache through which each row sees its own text."""
    return kind(prefix=rows.cache if rows.before else None, source=rows.source, width=rows.before)


class _Whole(KeysAndValues):
    """Keys and values of all columns are there already; those of the pass are a part of them."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self._both = keys, values

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._both


class _Collect(KeysAndValues):
    """Ends the pass as soon as keys and values are there."""

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        raise _Collected(*super().update(keys, values, layer_idx))


class _Collected(Exception):
    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
