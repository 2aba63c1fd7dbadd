"""The most likely continuation of a text, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from romexp.lm.batching import batched
from romexp.lm.forward import Row, logits, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.scoring import batch_tokens


@torch.no_grad()
def continue_greedily(lm: LanguageModel, texts: Sequence[tuple[tuple[int, ...], int]]) -> list[tuple[int, ...]]:
    """Extend texts by the model's most likely tokens.

    Args:
        texts: pairs (token ids, number of tokens to add).

    Returns:
        The token ids of each text with the tokens that were added.
    """
    extended = [list(text) for text, _ in texts]
    for step in range(max((count for _, count in texts), default=0)):
        unfinished = [i for i, (_, count) in enumerate(texts) if step < count]
        following = batched(
            partial(_next_tokens, lm),
            [tuple(extended[i]) for i in unfinished],
            [len(extended[i]) for i in unfinished],
            max_tokens=batch_tokens(lm),
        )
        for i, token in zip(unfinished, following, strict=True):
            extended[i].append(token)
    return [tuple(text) for text in extended]


def _next_tokens(lm: LanguageModel, texts: Sequence[tuple[int, ...]]) -> list[int]:
    """The most likely token after each text."""
    final = run_blocks(lm, make_inputs(lm, [Row.text(text) for text in texts]))
    last = torch.tensor([len(text) - 1 for text in texts], device=final.device)
    best: list[int] = logits(lm, final[torch.arange(len(texts), device=final.device), last]).argmax(dim=-1).tolist()
    return best
