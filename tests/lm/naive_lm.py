"""docs/method.md §5.2 and §5.5 in the plainest way: one text at a time through the whole model, nothing reused.

Of the package it takes the loaded model only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from romexp.lm.model import LanguageModel


def tokens(lm: LanguageModel, text: str, *, special: bool = True) -> list[int]:
    """Token ids; `special` puts what the tokenizer puts before every text."""
    return list(lm.tokenizer(text, add_special_tokens=special)["input_ids"])


@torch.no_grad()
def all_logits(lm: LanguageModel, ids: Sequence[int]) -> Tensor:
    """(tokens × vocabulary)."""
    return lm.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]


def nlls_after(lm: LanguageModel, before: Sequence[int], after: Sequence[int]) -> tuple[list[float], list[int]]:
    """-log p of each token of `after`, and the arg-max token where each is predicted."""
    rows = all_logits(lm, [*before, *after])[len(before) - 1 : -1].log_softmax(-1)
    return [-float(row[y]) for row, y in zip(rows, after, strict=True)], rows.argmax(-1).tolist()


def target_nlls(lm: LanguageModel, prompt: str, target: str) -> tuple[list[float], list[int]]:
    """`nlls_after` of a target after a prompt, each tokenized by itself, the target with a space before it."""
    return nlls_after(lm, tokens(lm, prompt), tokens(lm, f" {target}", special=False))


def text_nlls(lm: LanguageModel, text: str) -> list[float]:
    """-log p of tokens 2…T."""
    ids = tokens(lm, text)
    return nlls_after(lm, ids[:1], ids[1:])[0]


def sample(
    lm: LanguageModel, ids: Sequence[int], *, uniforms: Sequence[float], top_k: int, temperature: float = 1.0
) -> list[int]:
    """Add one token a uniform number: the first of the top k whose cumulative probability exceeds it."""
    grown = list(ids)
    for uniform in uniforms:
        probabilities, kept = (all_logits(lm, grown)[-1] / temperature).softmax(-1).topk(top_k)
        cumulative = (probabilities / probabilities.sum()).cumsum(-1).tolist()
        place = next((i for i, c in enumerate(cumulative) if c > uniform), top_k - 1)
        grown.append(int(kept[place]))
    return grown
