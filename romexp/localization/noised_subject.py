"""Runs a model on noised subjects wherever they stand in its inputs (docs/method.md §14.2, `forcing`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode, subject_range
from romexp.subjects import find_subject
from romexp.tracing.noise import Noise
from romexp.tracing.prompt import TracedPrompt

Noises = Mapping[tuple[int, ...], torch.Tensor]
"""By the tokens of a subject, the noise for them (samples × tokens × hidden size)."""


def subject_noises(lm: LanguageModel, prompt: TracedPrompt, noise: Noise, *, samples: int, seed: int = 1) -> Noises:
    """The noise of a fact's subject, for each way in which the subject is tokenized: as in its prompt, at the beginning
    of a text, and after a space. That of the prompt's tokens is the noise of the fact's trace.

    Args:
        seed: of the random stream, which begins anew for each way.
    """
    begin, end = prompt.subject_range
    ways = {prompt.ids[begin:end]: None}
    for text in (prompt.subject, f"So {prompt.subject}"):
        (encoding,) = encode(lm.tokenizer, [text])
        first, last = subject_range(encoding, find_subject(text, prompt.subject, ""), prompt.subject.strip())
        ways[encoding.ids[first:last]] = None
    return {ids: noise.draw(np.random.RandomState(seed % 2**32), (samples, len(ids), lm.hidden_size)) for ids in ways}


def one_sample(noises: Noises, sample: int) -> Noises:
    """The noise of one sample alone."""
    return {ids: noise[sample : sample + 1] for ids, noise in noises.items()}


@contextmanager
def noised_subject(lm: LanguageModel, noises: Noises) -> Iterator[LanguageModel]:
    """Inside the context, every occurrence of the subject's tokens in the model's inputs gets noise: row r of a batch
    that of sample r mod n.

    The sum is made in float64 and then rounded, as in the authors' traces.
    """
    # The longest first, so that a way that is part of another one does not take its place.
    ways = sorted(noises.items(), key=lambda way: -len(way[0]))

    def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        for row, ids in enumerate(args[0].tolist()):
            for column, width, noise in _occurrences(ids, ways):
                old = changed[row, column : column + width]
                changed[row, column : column + width] = (old.double() + noise[row % len(noise)].to(old.device)).to(
                    old.dtype
                )
        return changed

    handle = lm.module(lm.architecture.embedding).register_forward_hook(hook)
    try:
        yield lm
    finally:
        handle.remove()


def _occurrences(
    ids: list[int], ways: list[tuple[tuple[int, ...], torch.Tensor]]
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Where the ways stand in a row, without overlap: first column, number of tokens, and the way's noise."""
    column = 0
    while column < len(ids):
        for tokens, noise in ways:
            if tuple(ids[column : column + len(tokens)]) == tokens:
                yield column, len(tokens), noise
                column += len(tokens)
                break
        else:
            column += 1
