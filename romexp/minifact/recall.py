"""Measures how many facts a model knows, by greedy completion of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from romexp.lm.tokens import bare_ids, encode


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Fractions in [0, 1] of the prompts that greedy decoding continues correctly.

    Attributes:
        first: the first token of the object is correct.
        full: all tokens of the object are correct.
    """

    first: float
    full: float


@torch.no_grad()
def measure_recall(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[tuple[str, str]], rows: int = 64
) -> Recall:
    """Recall over pairs (prompt, object). Objects have no leading space.

    One pass with teacher forcing is enough for `full`: greedy decoding gives the object if and only if each of its
    tokens is the most likely one after the object's tokens before it.

    Args:
        rows: number of prompts in one forward pass.
    """
    first, full = [], []
    for start in range(0, len(prompts), rows):
        chunk = prompts[start : start + rows]
        before = [list(encoding.ids) for encoding in encode(tokenizer, [prompt for prompt, _ in chunk])]
        targets = [bare_ids(tokenizer, " " + target) for _, target in chunk]
        longest = max(len(b) + len(t) for b, t in zip(before, targets, strict=True))
        ids = torch.zeros(len(chunk), longest, dtype=torch.long)
        for row, (prefix, target) in enumerate(zip(before, targets, strict=True)):
            ids[row, : len(prefix) + len(target)] = torch.tensor(prefix + target)
        ids = ids.to(model.device)
        best = model(ids, attention_mask=torch.ones_like(ids)).logits.argmax(-1).tolist()
        for guess, prefix, target in zip(best, before, targets, strict=True):
            hits = [guess[len(prefix) - 1 + i] == token for i, token in enumerate(target)]
            first.append(hits[0])
            full.append(all(hits))
    return Recall(first=sum(first) / max(len(first), 1), full=sum(full) / max(len(full), 1))
