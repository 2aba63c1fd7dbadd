"""What an edit changed: answers, next tokens and texts before and after it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from romexp.api.generation import continue_texts, next_token_probabilities
from romexp.errors import raise_first_error
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.precision import in_own_precision
from romexp.lm.scoring import score
from romexp.lm.weight_delta import WeightDelta

ANSWER_TOKENS = 6
"""Tokens in which the model's own answer is looked for."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The old and the new answer to a prompt, and the likeliest next tokens, before and after an edit.

    Attributes:
        old: the word that the unedited model writes.
        new: the target.
        p_old: P(old) before and after; exp(-NLL), with NLL a mean over the answer's tokens (docs/method.md §5.2).
        p_new: P(new) before and after.
        top_before, top_after: (token, probability), most likely first.
    """

    old: str
    new: str
    p_old: tuple[float, float]
    p_new: tuple[float, float]
    top_before: tuple[tuple[str, float], ...]
    top_after: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """A text as both models continue it, each without the prompt."""

    prompt: str
    before: str
    after: str

    @property
    def changed(self) -> bool:
        return self.before != self.after


@dataclass(frozen=True, kw_only=True)
class KeptText:
    """A text about another subject, which the edit should leave alone.

    Attributes:
        token_before, token_after: the most likely next token.
        p_before, p_after: probability of `token_before`.
    """

    prompt: str
    token_before: str
    token_after: str
    p_before: float
    p_after: float

    @property
    def moved(self) -> float:
        """|p_after - p_before|."""
        return abs(self.p_after - self.p_before)


@in_own_precision
def answers(lm: LanguageModel, delta: WeightDelta, prompt: str, *, target: str, n: int = 5) -> Answers:
    """Compare what follows a prompt before and after an edit.

    Args:
        target: the new answer, without a leading space.
        n: number of likeliest next tokens.

    Raises:
        RecordError: the prompt with its answer is longer than the model's context.
    """
    old = own_answer(lm, prompt)
    sides = (None, delta)
    asked = tuple(text for text in (target, old) if text)
    scored = raise_first_error(score(lm, [Query(prompt=prompt, targets=asked)] * 2, deltas=sides))
    new_before, new_after = (math.exp(-side[0].nll) for side in scored)
    old_before, old_after = (math.exp(-side[1].nll) for side in scored) if old else (math.nan, math.nan)
    top = next_token_probabilities(lm, [prompt] * 2, sides).topk(n, dim=-1)
    before, after = (
        tuple((_text(lm, token), p) for token, p in zip(ids, values, strict=True))
        for ids, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    )
    return Answers(
        old=old,
        new=target,
        p_old=(old_before, old_after),
        p_new=(new_before, new_after),
        top_before=before,
        top_after=after,
    )


def own_answer(lm: LanguageModel, prompt: str, *, delta: WeightDelta | None = None) -> str:
    """The first word that the model writes after a prompt, taking the most likely token each time; may be empty."""
    text = str(continue_texts(lm, prompt, ANSWER_TOKENS, top_k=1, seed=0, delta=delta))[len(prompt) :]
    found = re.match(r"\s*([^\s.,;:!?()\"]+)", text)
    return found[1] if found else ""


@in_own_precision
def says(lm: LanguageModel, prompt: str, target: str) -> bool:
    """Whether the unedited model writes the target after the prompt, taking the most likely token each time."""
    (scored,) = raise_first_error(score(lm, [Query(prompt=prompt, targets=(target,))], deltas=[None]))
    return scored[0].predictions == scored[0].token_ids


def continuations(lm: LanguageModel, delta: WeightDelta, prompts: Sequence[str], *, tokens: int) -> list[Continuation]:
    """Let both models continue each text by at most `tokens` tokens, taking the most likely token each time.

    Raises:
        RecordError: a text with its new tokens is longer than the model's context.
    """
    if not prompts:
        return []
    before, after = (continue_texts(lm, list(prompts), tokens, top_k=1, seed=0, delta=side) for side in (None, delta))
    return [
        Continuation(prompt=prompt, before=old[len(prompt) :], after=new[len(prompt) :])
        for prompt, old, new in zip(prompts, before, after, strict=True)
    ]


@in_own_precision
@torch.no_grad()
def kept_texts(lm: LanguageModel, delta: WeightDelta, prompts: Sequence[str]) -> list[KeptText]:
    """How far the edit moved what follows each text.

    Raises:
        RecordError: a text is longer than the model's context.
    """
    if not prompts:
        return []
    before = next_token_probabilities(lm, prompts, [None] * len(prompts))
    after = next_token_probabilities(lm, prompts, [delta] * len(prompts))
    best = before.argmax(dim=-1)
    rows = torch.arange(len(prompts), device=best.device)
    return [
        KeptText(prompt=prompt, token_before=_text(lm, own), token_after=_text(lm, new), p_before=p, p_after=q)
        for prompt, own, new, p, q in zip(
            prompts,
            best.tolist(),
            after.argmax(dim=-1).tolist(),
            before[rows, best].tolist(),
            after[rows, best].tolist(),
            strict=True,
        )
    ]


def _text(lm: LanguageModel, token: int) -> str:
    return str(lm.tokenizer.decode([token]))
