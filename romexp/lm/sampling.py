"""Seeded top-k sampling of many texts at once, each row through its own edited model (docs/method.md §5.5).

Every row draws from its own generator, so its text does not depend on the batch it is in.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from romexp.errors import ConfigError, RecordError, result_or_error, with_errors_in_place, without_errors
from romexp.lm.apply_delta import overlay
from romexp.lm.batching import batched
from romexp.lm.forward import BlockInputs, additive_mask, check_length, context_length, logits, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode
from romexp.lm.weight_delta import WeightDelta


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How texts are drawn. The defaults are the paper's evaluation
    (docs/method.md §5.4); sampling never stops at end of text.

    Attributes:
        max_length: length of a text in tokens, the prompt included; a longer prompt is left as it is.
        top_k: tokens kept before renormalizing.
        temperature: logits are divided by it.
        cache_gib: memory for keys and values of one batch, in GiB; it decides how many texts grow side by side.
    """

    max_length: int = 100
    top_k: int = 5
    temperature: float = 1.0
    cache_gib: float = 2.0

    def __post_init__(self) -> None:
        if self.max_length < 1 or self.top_k < 1 or self.temperature <= 0 or self.cache_gib <= 0:
            raise ConfigError(f"sampler: max_length, top_k, temperature and cache_gib must be positive, got {self}")


class _Buffer:
    """Keys and values of a growing batch, written into memory taken once per layer."""

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
) -> list[str | RecordError]:
    """Continue each prompt; the prompt is part of the returned text.

    Args:
        seeds: one a prompt (see `romexp.seeds`).
        deltas: the edit that each text is drawn through, None for the unedited model; None: no text has one.
        stop_at_end: cut each text before the first end-of-text token that was drawn. The paper's evaluation does not.

    Returns:
        Texts without special tokens, NFKD-normalized, blank lines turned into spaces. In the place of a prompt longer
        than the model's context, its error.

    Raises:
        ConfigError: `max_length` exceeds the model's context.
    """
    if sampler.max_length > (limit := context_length(lm)):
        raise ConfigError(
            f"sampler.max_length: texts of {sampler.max_length} tokens, but {lm.name!r} sees {limit} at once"
        )
    rows = [
        _Row(ids=encoding.ids or (int(lm.tokenizer.eos_token_id),), seed=seed, delta=delta)
        for encoding, seed, delta in zip(
            encode(lm.tokenizer, prompts), seeds, [None] * len(seeds) if deltas is None else deltas, strict=True
        )
    ]
    checked = [result_or_error(partial(_checked, lm, row)) for row in rows]

    def work(batch: Sequence[_Row]) -> list[str]:
        with overlay(lm, [row.delta for row in batch]):
            grown = _grow(lm, [row.ids for row in batch], sampler=sampler, seeds=[row.seed for row in batch])
        if stop_at_end:
            grown = [_cut(lm, ids, len(row.ids)) for row, ids in zip(batch, grown, strict=True)]
        return [clean(lm, ids) for ids in grown]

    good = without_errors(checked)
    order = sorted(range(len(good)), key=lambda i: len(good[i].ids))
    # Every text costs the same memory, whatever the length of its prompt.
    found = batched(work, [good[i] for i in order], [1] * len(order), max_tokens=_rows_in_memory(lm, sampler))
    texts = dict(zip(order, found, strict=True))
    return with_errors_in_place(checked, [texts[i] for i in range(len(good))])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """A text to grow: the prompt's tokens, the seed of its draws, the edit."""

    ids: tuple[int, ...]
    seed: int
    delta: WeightDelta | None


def _checked(lm: LanguageModel, row: _Row) -> _Row:
    check_length(lm, len(row.ids))
    return row


def _cut(lm: LanguageModel, ids: tuple[int, ...], prompt_length: int) -> tuple[int, ...]:
    """The prompt and what was drawn after it, up to the first end of text."""
    end = lm.tokenizer.eos_token_id
    return ids[: ids.index(end, prompt_length)] if end in ids[prompt_length:] else ids


def clean(lm: LanguageModel, ids: Sequence[int]) -> str:
    """Token ids to the text that is scored (docs/method.md §5.5): NFKD, blank lines to spaces, no end-of-text marks."""
    text = unicodedata.normalize("NFKD", str(lm.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)))
    text = text.replace("\n\n", " ")
    for token in dict.fromkeys((lm.tokenizer.eos_token, lm.tokenizer.bos_token)):
        text = text.replace(token, "") if token else text
    return text


def _rows_in_memory(lm: LanguageModel, sampler: Sampler) -> int:
    config = lm.model.config
    heads = int(getattr(config, "num_key_value_heads", 0) or config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", 0) or lm.hidden_size // config.num_attention_heads)
    per_row = 2 * lm.n_layers * heads * head_size * sampler.max_length * lm.dtype.itemsize
    return max(1, int(sampler.cache_gib * 2**30 / per_row))


def _grow(
    lm: LanguageModel, rows: Sequence[tuple[int, ...]], *, sampler: Sampler, seeds: Sequence[int]
) -> list[tuple[int, ...]]:
    """Prompts are left-padded so that all of them end at one column; then one column is added at a time."""
    device, width = lm.device, max(map(len, rows))
    steps = sampler.max_length - min(map(len, rows))
    if steps <= 0:
        return list(rows)
    draws = _uniforms(seeds, steps).to(device)
    ids = torch.full((len(rows), width + steps), int(lm.tokenizer.pad_token_id), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) : width] = torch.tensor(row)
    ids = ids.to(device)
    pads = torch.tensor([width - len(row) for row in rows], device=device)[:, None]
    columns = torch.arange(width + steps, device=device)[None]
    positions = (columns - pads).clamp(min=0)
    # Texts of a batch stop at different columns; positions beyond the context length are never read from such rows.
    positions = positions.clamp(max=sampler.max_length - 1 if sampler.max_length >= width else width - 1)
    buffer = _Buffer(width + steps)
    allowed = (columns >= pads)[:, None] & (columns <= columns.T)[None]  # (batch × queries × keys)
    allowed |= torch.eye(width + steps, dtype=torch.bool, device=device)[None]  # padding sees itself: no empty row
    seen = 0
    for step in range(steps):
        end = width + step
        mask = additive_mask(lm, allowed[:, None, seen:end, :end])
        hidden = run_blocks(
            lm, BlockInputs(ids=ids[:, seen:end], positions=positions[:, seen:end], mask=mask), cache=buffer
        )
        ids[:, end] = _draw(logits(lm, hidden[:, -1]), draws[:, step], sampler)
        seen = end
    lists = ids.tolist()
    return [
        tuple(line[width - len(row) : width - len(row) + max(sampler.max_length, len(row))])
        for line, row in zip(lists, rows, strict=True)
    ]


def _uniforms(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """(rows × steps) uniform numbers, row i from seed i alone."""
    return torch.stack([torch.rand(steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _draw(scores: torch.Tensor, uniform: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """One token a row from the renormalized top k, by inverting the cumulative distribution at `uniform`."""
    top = (scores / sampler.temperature).topk(min(sampler.top_k, scores.shape[-1]), dim=-1)
    cumulative = top.values.softmax(dim=-1).cumsum(dim=-1)
    index = (uniform[:, None] * cumulative[:, -1:] >= cumulative).sum(dim=-1).clamp(max=top.indices.shape[-1] - 1)
    return top.indices.gather(1, index[:, None])[:, 0]
