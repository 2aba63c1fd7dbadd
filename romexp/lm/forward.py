"""Forward passes that compute only what changed (docs/method.md §9.3).

Every pass gets explicit positions and an explicit 4-D mask. Transformers passes such a mask to the attention unchanged,
so padding, packed alternatives and reused prefixes work in the same way for every architecture. To skip blocks, the
model's list of blocks is shortened for one call. The model's own loop still runs the blocks, so no code here depends on
the model family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from romexp.errors import RecordError
from romexp.lm.grouped_heads import without_copies
from romexp.lm.head import own_logits
from romexp.lm.hooks import first_tensor
from romexp.lm.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a batch: a text, or a prompt followed by several alternative continuations.

    Attributes:
        ids: token ids.
        positions: the position of each token in its own text.
        segments: 0 for a token of the shared prompt, k > 0 for a token of the k-th alternative. A token attends only
            to earlier tokens of its own segment and of segment 0.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    segments: tuple[int, ...]

    @classmethod
    def text(cls, ids: Sequence[int]) -> Row:
        """The row of a plain text: positions 0 … n-1, all in segment 0."""
        return cls(ids=tuple(ids), positions=tuple(range(len(ids))), segments=(0,) * len(ids))

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, end: int | None = None) -> Row:
        """The tokens from `start` to `end` - 1 with their positions; without `end`, all from `start` on."""
        return Row(ids=self.ids[start:end], positions=self.positions[start:end], segments=self.segments[start:end])


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockInputs:
    """Inputs of one forward pass.

    Attributes:
        ids: token ids (batch × queries) int64.
        positions: (batch × queries) int64.
        mask: (batch × 1 × queries × keys), added to the attention scores: 0 where a query may attend, a very negative
            number elsewhere. The key columns are those of the reused prefix, if any, then the queries' own.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor

    def select(self, rows: torch.Tensor) -> BlockInputs:
        """The inputs of these batch rows. A row may be repeated."""
        return BlockInputs(ids=self.ids[rows], positions=self.positions[rows], mask=self.mask[rows])


def make_inputs(lm: LanguageModel, rows: Sequence[Row]) -> BlockInputs:
    """Right-pad rows to the inputs of one pass; a row may be empty. Padding tokens attend only to padding, and no other
    token attends to them.

    Raises:
        RecordError: a row is longer than the model's context or its sliding window, or has a token without embedding.
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
    check_known(lm, [int(ids.max())])
    ids, positions, segments = (x.to(lm.device) for x in (ids, positions, segments))
    key, query = segments[:, None, :], segments[:, :, None]
    causal = torch.ones((width, width), dtype=torch.bool, device=lm.device).tril()
    allowed = causal & ((key == query) | ((key == 0) & (query >= 0)))
    return BlockInputs(ids=ids, positions=positions, mask=additive_mask(lm, allowed[:, None]))


def additive_mask(lm: LanguageModel, allowed: torch.Tensor) -> torch.Tensor:
    """Turn a boolean mask (… × queries × keys) into the additive mask that both eager and SDPA attention accept."""
    mask = torch.zeros(allowed.shape, dtype=lm.dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(lm.dtype).min)


def context_length(lm: LanguageModel) -> int:
    """The longest text in tokens that is computed correctly.

    This is the number of positions, or the size of the sliding window: explicit masks switch sliding windows off.
    """
    config = lm.model.config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return min(lm.max_positions, window or lm.max_positions)


def check_length(lm: LanguageModel, length: int) -> None:
    """Check that a text of `length` tokens fits into the model's context.

    Raises:
        RecordError: the text is longer than `context_length`.
    """
    if length > (limit := context_length(lm)):
        raise RecordError(f"a text of {length} tokens, but {lm.name!r} sees {limit} at once", field="prompt")


def check_known(lm: LanguageModel, ids: Sequence[int]) -> None:
    """Check that the model has an embedding for every token of a text. Tokens that were added to a tokenizer may have
    none.

    Raises:
        RecordError: a token has none.
    """
    if ids and (highest := max(ids)) >= lm.vocabulary_size:
        token = lm.tokenizer.convert_ids_to_tokens(highest)
        raise RecordError(f"the text has the token {token!r}, for which {lm.name!r} has no embedding", field="prompt")


class KeysAndValues:
    """A key/value cache with the interface that attention layers use: `update(keys, values, layer)`.

    It puts the keys and values of a fixed prefix, if there is one, before the new ones. The prefix never grows, so one
    cache can serve many passes. All tensors are (batch × heads × tokens × head size).

    Args:
        prefix: keys and values of the tokens before those of the pass, by layer.
        source: for each row of the batch, the row of the prefix that belongs to it. It is applied layer by layer, which
            saves memory. None: row i belongs to row i.
        width: use only the first `width` columns of the prefix; None uses all.
        record: keep the new keys and values in `stored`, by layer.
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
            old_keys, old_values = (self._visible_part(stored) for stored in self.prefix[layer_idx])
            return torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)
        return keys, values

    def _visible_part(self, stored: torch.Tensor) -> torch.Tensor:
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
        start: the first block to run. If it equals the number of blocks, only the final norm is applied.
        stop: one past the last block to run. None runs all remaining blocks and applies the final norm, so that
            `logits` can follow.
        hidden: the input of block `start`, for the same columns as `inputs`; needed if `start` > 0.
        cache: an object with `update(keys, values, layer)` (see `KeysAndValues`).

    Raises:
        ValueError: `hidden` is needed but missing.
    """
    if stop is not None and stop <= start:
        if hidden is None:
            raise ValueError("there is no block to run (stop <= start) and no hidden state to return")
        return hidden
    if start > 0 and hidden is None:
        raise ValueError(f"block {start} needs its input, but no hidden state is given")
    if start >= lm.n_layers and hidden is not None:
        return lm.module(lm.architecture.final_norm)(hidden)
    chosen = _only_blocks(lm, start=start, stop=stop, hidden=hidden)
    with chosen as last_output, without_copies(lm.device, n_queries=inputs.ids.shape[1]):
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
    """Inside the context the model has only blocks [start, stop), and `hidden`, if given, is the input of the first.

    Yields a list that holds the output of the last of these blocks once they have run, if `stop` is given.
    """
    parent_name, _, attribute = lm.architecture.layers.rpartition(".")
    parent = lm.module(parent_name)
    whole: nn.ModuleList = getattr(parent, attribute)
    chosen = nn.ModuleList(list(whole)[start:stop])
    last_output: list[torch.Tensor] = []
    handles = []
    if hidden is not None:
        handles.append(chosen[0].register_forward_pre_hook(_input_replacement_hook(hidden), with_kwargs=True))
    if stop is not None:
        handles.append(chosen[-1].register_forward_hook(lambda _m, _a, out: last_output.append(first_tensor(out))))
    try:
        setattr(parent, attribute, chosen)
        yield last_output
    finally:
        setattr(parent, attribute, whole)
        for handle in handles:
            handle.remove()


def _input_replacement_hook(hidden: torch.Tensor):  # type: ignore[no-untyped-def]
    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    return hook


def logits(lm: LanguageModel, hidden: torch.Tensor) -> torch.Tensor:
    """The model's logits of states with the final norm applied: (… × hidden size) → (… × vocabulary), float32."""
    if lm.plain_head:
        return lm.model.get_output_embeddings()(hidden).float()
    return own_logits(lm.model, hidden).float()


def layer_of(lm: LanguageModel, parameter: str) -> int:
    """The number of the block that contains a parameter.

    Raises:
        ValueError: the parameter is outside the blocks (embeddings, final norm, output head).
    """
    prefix = lm.architecture.layers + "."
    if not parameter.startswith(prefix):
        raise ValueError(f"{parameter} is not inside a block of {lm.architecture.layers}")
    return int(parameter[len(prefix) :].split(".", 1)[0])


def suffix_inputs(lm: LanguageModel, rows: Sequence[Row], starts: Sequence[int], *, prefix_width: int) -> BlockInputs:
    """The inputs of a pass over row i's tokens from `starts[i]` on, with a cached prefix of `prefix_width` columns.

    Column c of the prefix holds token c of the row; row i attends to it if c < starts[i].
    """
    own = make_inputs(lm, [row.part(start) for row, start in zip(rows, starts, strict=True)])
    visible = torch.arange(prefix_width, device=lm.device)[None] < torch.tensor(list(starts), device=lm.device)[:, None]
    before = additive_mask(lm, visible[:, None, None, :].expand(-1, 1, own.ids.shape[1], -1))
    return replace(own, mask=torch.cat([before, own.mask], dim=-1))
