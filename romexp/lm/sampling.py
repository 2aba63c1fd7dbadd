"""Seeded top-k sampling of many texts at once, where each text may come from its own edited model
(docs/method.md §5.5).

Each text has its own random generator, so it does not depend on the batch it is in.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from romexp.bounds import check_bounds
from romexp.errors import ConfigError, RecordError, result_or_error, with_errors_in_place, without_errors
from romexp.lm.apply_delta import overlay
from romexp.lm.batching import batched
from romexp.lm.forward import BlockInputs, additive_mask, check_known, check_length, context_length, logits, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode
from romexp.lm.weight_delta import WeightDelta


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Settings of the sampler. The defaults are those of the paper's evaluation (docs/method.md §5.4).

    Attributes:
        max_length: length of a text in tokens, the prompt included. A longer prompt is returned unchanged.
        top_k: the number of most likely tokens among which one is drawn; None draws from all, without sorting them.
        temperature: logits are divided by it.
        cache_gib: memory in GiB for the keys and values of one batch; it limits the number of texts in a batch.

    Raises:
        ConfigError: a value is not positive.
    """

    max_length: int = 100
    top_k: int | None = 5
    temperature: float = 1.0
    cache_gib: float = 2.0

    def __post_init__(self) -> None:
        if (
            self.max_length < 1
            or (self.top_k is not None and self.top_k < 1)
            or self.temperature <= 0
            or self.cache_gib <= 0
        ):
            raise ConfigError(f"sampler: max_length, top_k, temperature and cache_gib must be positive, got {self}")
        check_bounds(self, "sampler", finite=("temperature", "cache_gib"))


class _Buffer:
    """A key/value cache for generation. It allocates `capacity` columns once per layer, then fills them in place."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used: dict[int, int] = {}
        self.tensors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if layer_idx not in self.tensors:
            shape = (*keys.shape[:2], self.capacity, keys.shape[3])
            self.tensors[layer_idx] = (keys.new_empty(shape), values.new_empty(shape))
        start = self.used.get(layer_idx, 0)
        end = self.used[layer_idx] = start + keys.shape[2]
        old_keys, old_values = self.tensors[layer_idx]
        old_keys[:, :, start:end] = keys
        old_values[:, :, start:end] = values
        return old_keys[:, :, :end], old_values[:, :, :end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.used.get(layer_idx, 0)


@torch.no_grad()
def generate(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    sampler: Sampler,
    seeds: Sequence[int],
    deltas: Sequence[WeightDelta | None] | None = None,
    stop_at_end: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[str | RecordError]:
    """Continue each prompt up to `sampler.max_length` tokens (docs/method.md §5.5).

    Args:
        seeds: one per prompt (see `romexp.seeds`).
        deltas: for each prompt the edit of the model that continues it, or None for the unedited model. `deltas=None`
            takes the unedited model for all prompts.
        stop_at_end: cut each text before the first end-of-text token that was drawn. The paper's evaluation does not.
        progress: called after each step of each batch with the numbers of tokens drawn and to draw.

    Returns:
        For each prompt its text, prompt included, as `clean` makes it from tokens; or a `RecordError` if the prompt is
        longer than the model's context.

    Raises:
        ConfigError: `max_length` exceeds the model's context.
    """
    if sampler.max_length > (limit := context_length(lm)):
        raise ConfigError(
            f"sampler.max_length: texts of {sampler.max_length} tokens, but {lm.name!r} sees {limit} at once"
        )
    # A start that is neither an end-of-text nor a BOS mark, which `clean` removes, is no part of the text.
    hidden = int(lm.start_id not in (lm.tokenizer.eos_token_id, lm.tokenizer.bos_token_id))
    rows = [
        _Row(ids=encoding.ids or (lm.start_id,), seed=seed, delta=delta, hidden=0 if encoding.ids else hidden)
        for encoding, seed, delta in zip(
            encode(lm.tokenizer, prompts), seeds, [None] * len(seeds) if deltas is None else deltas, strict=True
        )
    ]
    checked = [result_or_error(partial(_checked, lm, row)) for row in rows]
    steps = _Steps(total=sum(sampler.max_length - len(row.ids) for row in rows), progress=progress)

    def work(batch: Sequence[_Row]) -> list[str]:
        with overlay(lm, [row.delta for row in batch]):
            grown = _continue_batch(
                lm, [row.ids for row in batch], sampler=sampler, seeds=[row.seed for row in batch], steps=steps
            )
        if stop_at_end:
            grown = [_cut_at_end_of_text(lm, ids, len(row.ids)) for row, ids in zip(batch, grown, strict=True)]
        return [clean(lm, ids[row.hidden :]) for row, ids in zip(batch, grown, strict=True)]

    good = without_errors(checked)
    order = sorted(range(len(good)), key=lambda i: len(good[i].ids))
    # The cache holds `max_length` tokens for each text, whatever the length of its prompt. So each text counts as 1.
    found = batched(work, [good[i] for i in order], [1] * len(order), max_tokens=_rows_in_memory(lm, sampler))
    texts = dict(zip(order, found, strict=True))
    return with_errors_in_place(checked, [texts[i] for i in range(len(good))])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """One text to generate: the prompt's tokens, of which the first `hidden` are no part of the text, the seed of its
    draws, and the edit of its model."""

    ids: tuple[int, ...]
    seed: int
    delta: WeightDelta | None
    hidden: int = 0


@dataclass(kw_only=True)
class _Steps:
    """Reports tokens as they are drawn."""

    total: int
    progress: Callable[[int, int], None] | None
    drawn: int = 0

    def add(self, tokens: int) -> None:
        self.drawn = min(self.total, self.drawn + tokens)
        if self.progress:
            self.progress(self.drawn, self.total)


def _checked(lm: LanguageModel, row: _Row) -> _Row:
    check_length(lm, len(row.ids))
    check_known(lm, row.ids)
    return row


def _cut_at_end_of_text(lm: LanguageModel, ids: tuple[int, ...], prompt_length: int) -> tuple[int, ...]:
    """Cut a text before the first end-of-text token after the prompt, or another that its tokenizer ends texts with."""
    _, after = lm.special_ids
    ends = {lm.tokenizer.eos_token_id, *after}
    return ids[: next((i for i in range(prompt_length, len(ids)) if ids[i] in ends), len(ids))]


def clean(lm: LanguageModel, ids: Sequence[int]) -> str:
    """Turn token ids into the text that is scored (docs/method.md §5.5).

    The text is NFKD-normalized, "\\n\\n" becomes a space, and the marks of end of text and BOS are removed, with
    all others that the tokenizer itself puts around texts.
    """
    text = unicodedata.normalize("NFKD", str(lm.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)))
    text = text.replace("\n\n", " ")
    before, after = lm.special_ids
    added = lm.tokenizer.convert_ids_to_tokens([*before, *after])
    for token in dict.fromkeys((lm.tokenizer.eos_token, lm.tokenizer.bos_token, *added)):
        text = text.replace(token, "") if token else text
    return text


def _rows_in_memory(lm: LanguageModel, sampler: Sampler) -> int:
    """How many texts fit into a batch, so that their keys and values need at most `sampler.cache_gib`."""
    config = lm.model.config
    heads = int(getattr(config, "num_key_value_heads", 0) or config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", 0) or lm.hidden_size // config.num_attention_heads)
    per_row = 2 * lm.n_layers * heads * head_size * sampler.max_length * lm.dtype.itemsize
    return max(1, int(sampler.cache_gib * 2**30 / per_row))


def _continue_batch(
    lm: LanguageModel, rows: Sequence[tuple[int, ...]], *, sampler: Sampler, seeds: Sequence[int], steps: _Steps
) -> list[tuple[int, ...]]:
    """Continue a batch of prompts and return the token ids of the texts, prompts included.

    Prompts are left-padded so that all of them end at the same column; each step then adds one column.
    """
    device, width = lm.device, max(map(len, rows))
    n_steps = sampler.max_length - min(map(len, rows))
    if n_steps <= 0:
        return list(rows)
    draws = _uniforms(seeds, n_steps).to(device)
    ids = torch.full((len(rows), width + n_steps), int(lm.tokenizer.pad_token_id), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) : width] = torch.tensor(row)
    ids = ids.to(device)
    pads = torch.tensor([width - len(row) for row in rows], device=device)[:, None]
    columns = torch.arange(width + n_steps, device=device)[None]
    positions = (columns - pads).clamp(min=0)
    # A text that has reached its length stays in the batch, but its further tokens are cut off below. Their
    # positions are clamped, because there are no embeddings for positions beyond the model's context.
    positions = positions.clamp(max=sampler.max_length - 1 if sampler.max_length >= width else width - 1)
    buffer = _Buffer(width + n_steps)
    allowed = (columns >= pads)[:, None] & (columns <= columns.T)[None]  # (batch × queries × keys)
    # Padding attends to itself, since a softmax over a fully masked row would be undefined.
    allowed |= torch.eye(width + n_steps, dtype=torch.bool, device=device)[None]
    seen = 0
    for step in range(n_steps):
        end = width + step
        mask = additive_mask(lm, allowed[:, None, seen:end, :end])
        hidden = run_blocks(
            lm, BlockInputs(ids=ids[:, seen:end], positions=positions[:, seen:end], mask=mask), cache=buffer
        )
        ids[:, end] = _draw(logits(lm, hidden[:, -1]), draws[:, step], sampler)
        seen = end
        steps.add(len(rows))
    lists = ids.tolist()
    return [
        tuple(line[width - len(row) : width - len(row) + max(sampler.max_length, len(row))])
        for line, row in zip(lists, rows, strict=True)
    ]


def _uniforms(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """Uniform random numbers in [0, 1) (rows × steps); row i depends on `seeds[i]` only."""
    return torch.stack([torch.rand(steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _draw(scores: torch.Tensor, uniform: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Draw one token per row from the top k (rows): the inverse of the cumulative distribution, at `uniform`.

    Args:
        scores: logits (rows × vocabulary).
        uniform: random numbers in [0, 1) (rows).
    """
    scaled = scores / sampler.temperature
    if sampler.top_k is None:
        return _inverse(scaled.softmax(dim=-1).cumsum(dim=-1), uniform)
    top = scaled.topk(min(sampler.top_k, scaled.shape[-1]), dim=-1)
    index = _inverse(top.values.softmax(dim=-1).cumsum(dim=-1), uniform)
    return top.indices.gather(1, index[:, None])[:, 0]


def _inverse(cumulative: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first column (rows) of a cumulative distribution (rows × columns) that exceeds `uniform` (rows)."""
    found = (uniform[:, None] * cumulative[:, -1:] >= cumulative).sum(dim=-1)
    return found.clamp(max=cumulative.shape[-1] - 1)
