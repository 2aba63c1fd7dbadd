"""Forward passes that compute only what changed (docs/method.md §9.3).

Every pass is given explicit positions and an explicit 4-D mask, so that padding, packed alternatives and reused
prefixes mean the same on every architecture: transformers hands such a mask to the attention as it is. Blocks are
skipped by shortening the model's list of blocks for the length of one call; the model's own loop still runs them, so
nothing here knows a family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from romexp.errors import RecordError
from romexp.lm.hooks import first_tensor
from romexp.lm.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a batch: a text, or a prompt with alternatives packed behind it.

    Attributes:
        ids: token ids.
        positions: position of each token in its own text.
        segments: 0 for the shared prompt, k > 0 for the k-th alternative; a token sees its own segment and segment 0.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    segments: tuple[int, ...]

    @classmethod
    def text(cls, ids: Sequence[int]) -> Row:
        """A plain text: positions 0…n-1, one segment."""
        return cls(ids=tuple(ids), positions=tuple(range(len(ids))), segments=(0,) * len(ids))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockInputs:
    """What one forward pass is given.

    Attributes:
        ids: (batch × queries) int64.
        positions: (batch × queries) int64.
        mask: (batch × 1 × queries × keys), added to attention scores: 0 where a query may look, very negative
            elsewhere. `keys` counts a reused prefix first, then the queries' own columns.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor

    def select(self, rows: torch.Tensor) -> BlockInputs:
        """The pass of these batch rows, repeats allowed."""
        return BlockInputs(ids=self.ids[rows], positions=self.positions[rows], mask=self.mask[rows])


def make_inputs(lm: LanguageModel, rows: Sequence[Row]) -> BlockInputs:
    """Right-pad rows into one pass; a row may be empty. Padding sees and is seen by nothing but itself.

    Raises:
        RecordError: a row is longer than the model's context or its sliding window.
    """
    width = max(1, *map(len, rows))
    check_length(lm, max((position for row in rows for position in row.positions), default=0) + 1)
    ids = torch.full((len(rows), width), int(lm.tokenizer.pad_token_id), dtype=torch.long)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    segments = torch.full((len(rows), width), -1, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row.ids)
        positions[i, : len(row)] = torch.tensor(row.positions)
        segments[i, : len(row)] = torch.tensor(row.segments)
    ids, positions, segments = (x.to(lm.device) for x in (ids, positions, segments))
    key, query = segments[:, None, :], segments[:, :, None]
    causal = torch.ones((width, width), dtype=torch.bool, device=lm.device).tril()
    allowed = causal & ((key == query) | ((key == 0) & (query >= 0)))
    return BlockInputs(ids=ids, positions=positions, mask=additive_mask(lm, allowed[:, None]))


def additive_mask(lm: LanguageModel, allowed: torch.Tensor) -> torch.Tensor:
    """Boolean (… × queries × keys) to the additive form that eager and SDPA attention both take."""
    mask = torch.zeros(allowed.shape, dtype=lm.dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(lm.dtype).min)


def context_length(lm: LanguageModel) -> int:
    """Tokens that the model sees at once: its positions, or a sliding window, which explicit masks do not apply."""
    config = lm.model.config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return min(lm.max_positions, window or lm.max_positions)


def check_length(lm: LanguageModel, length: int) -> None:
    """Refuse a text that the model cannot see whole.

    Raises:
        RecordError: it exceeds `context_length`.
    """
    if length > (limit := context_length(lm)):
        raise RecordError(f"a text of {length} tokens, but {lm.name!r} sees {limit} at once", field="prompt")


class KeysAndValues:
    """A key/value cache in the part that attention layers use: `update(keys, values, layer)`.

    With a prefix it returns prefix + new without storing; otherwise it stores what it is given, if told to.
    Shapes are (batch × heads × tokens × head size).

    Args:
        prefix: keys and values to look back at, by layer.
        source: the prefix's row for each row of the batch, gathered layer by layer; None: they are the same rows.
        width: columns of the prefix that are looked at; None: all.
        record: store what is given.
    """

    def __init__(
        self,
        *,
        prefix: Mapping[int, tuple[torch.Tensor, torch.Tensor]] | None = None,
        source: torch.Tensor | None = None,
        width: int | None = None,
        record: bool = False,
    ) -> None:
        self.prefix = dict(prefix or {})
        self.source, self.width = source, width
        self.record = record
        self.stored: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.record:
            self.stored[layer_idx] = (keys, values)
        if layer_idx in self.prefix:
            old_keys, old_values = (self._seen(stored) for stored in self.prefix[layer_idx])
            return torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)
        return keys, values

    def _seen(self, stored: torch.Tensor) -> torch.Tensor:
        cut = stored[:, :, : self.width]
        return cut if self.source is None else cut.index_select(0, self.source)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return next((keys[:, :, : self.width].shape[2] for keys, _ in self.prefix.values()), 0)


def run_blocks(
    lm: LanguageModel,
    inputs: BlockInputs,
    *,
    start: int = 0,
    stop: int | None = None,
    hidden: torch.Tensor | None = None,
    cache: Any = None,
) -> torch.Tensor:
    """Run blocks `start` … `stop`-1 and return the residual stream (batch × queries × hidden size).

    Args:
        start: first block to run; `hidden` is then its input, for the same columns as `inputs`. One past the last
            block leaves only the final norm.
        stop: one past the last block. None runs them all and applies the final norm, ready for `logits`.
        cache: an object with `update(keys, values, layer)` (see `KeysAndValues`).
    """
    if stop is not None and stop <= start:
        if hidden is None:
            raise ValueError("nothing to run: stop <= start and no hidden state given")
        return hidden
    if start > 0 and hidden is None:
        raise ValueError(f"block {start} needs the hidden state that enters it")
    if start >= lm.n_layers and hidden is not None:
        return lm.module(lm.architecture.final_norm)(hidden)
    with _only_blocks(lm, start=start, stop=stop, hidden=hidden) as last_output:
        out = lm.model.base_model(
            input_ids=inputs.ids,
            position_ids=inputs.positions,
            attention_mask=inputs.mask,
            past_key_values=cache,
            use_cache=False,
        )
    return out.last_hidden_state if stop is None else last_output[0]


@contextmanager
def _only_blocks(
    lm: LanguageModel, *, start: int, stop: int | None, hidden: torch.Tensor | None
) -> Iterator[list[torch.Tensor]]:
    """Shorten the list of blocks to [start, stop), feed `hidden` to the first, keep the output of the last."""
    parent_name, _, attribute = lm.architecture.layers.rpartition(".")
    parent = lm.module(parent_name)
    whole: nn.ModuleList = getattr(parent, attribute)
    chosen = nn.ModuleList(list(whole)[start:stop])
    last_output: list[torch.Tensor] = []
    handles = []
    if hidden is not None:
        handles.append(chosen[0].register_forward_pre_hook(_feed(hidden), with_kwargs=True))
    if stop is not None:
        handles.append(chosen[-1].register_forward_hook(lambda _m, _a, out: last_output.append(first_tensor(out))))
    try:
        setattr(parent, attribute, chosen)
        yield last_output
    finally:
        setattr(parent, attribute, whole)
        for handle in handles:
            handle.remove()


def _feed(hidden: torch.Tensor):  # type: ignore[no-untyped-def]
    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    return hook


def logits(lm: LanguageModel, hidden: torch.Tensor) -> torch.Tensor:
    """Output head on states that `run_blocks` returned with the final norm applied: (… × vocabulary), in float32."""
    head = lm.model.get_output_embeddings()
    return head(hidden).float()


def layer_of(lm: LanguageModel, parameter: str) -> int:
    """The block that a parameter belongs to.

    Raises:
        ValueError: it is outside the blocks (embeddings, final norm, output head).
    """
    prefix = lm.architecture.layers + "."
    if not parameter.startswith(prefix):
        raise ValueError(f"{parameter} is not inside a block of {lm.architecture.layers}")
    return int(parameter[len(prefix) :].split(".", 1)[0])


def suffix_inputs(lm: LanguageModel, rows: Sequence[Row], starts: Sequence[int], *, prefix_width: int) -> BlockInputs:
    """A pass over each row's tokens from `starts[i]` on, looking back at a cached prefix of `prefix_width` columns.

    Column c of the prefix is token c of the row and is visible if c < starts[i].
    """
    tails = [
        Row(ids=row.ids[s:], positions=row.positions[s:], segments=row.segments[s:])
        for row, s in zip(rows, starts, strict=True)
    ]
    own = make_inputs(lm, tails)
    visible = torch.arange(prefix_width, device=lm.device)[None] < torch.tensor(list(starts), device=lm.device)[:, None]
    before = additive_mask(lm, visible[:, None, None, :].expand(-1, 1, own.ids.shape[1], -1))
    return replace(own, mask=torch.cat([before, own.mask], dim=-1))
