"""Two ways to make the subject unreadable: noise on its embeddings, or another subject in its place (docs/method.md
§2.1, §2.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from romexp.errors import ConfigError
from romexp.lm.hooks import Change
from romexp.lm.model import LanguageModel
from romexp.tracing.prompt import TracedPrompt

Corruption = Literal["noise", "str"]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)


def corrupt(
    prompts: Sequence[TracedPrompt], noises: Sequence[torch.Tensor], *, samples: int, extra_token: int, replace: bool
) -> Change:
    """A change of the embeddings that puts noise on the tokens [b, e + extra_token) of each sample.

    Args:
        noises: one per prompt (samples × corrupted tokens × hidden size).
        replace: the noise replaces the embedding instead of being added to it.
    """

    def change(embeddings: torch.Tensor) -> torch.Tensor:
        changed = embeddings.clone()
        for i, (prompt, noise) in enumerate(zip(prompts, noises, strict=True)):
            rows = slice(i * samples, (i + 1) * samples)
            begin, end = corrupted_range(prompt, extra_token)
            # The sum is made in float64 and then rounded, as in the authors' code.
            old = changed[rows, begin:end]
            new = noise.to(old.device) if replace else old.double() + noise.to(old.device)
            changed[rows, begin:end] = new.to(old.dtype)
        return changed

    return change


def corrupted_range(prompt: TracedPrompt, extra_token: int) -> tuple[int, int]:
    """The tokens [b, e) that get noise: the subject and up to `extra_token` tokens after it, within the prompt."""
    begin, end = prompt.subject_range
    return begin, min(end + extra_token, len(prompt.ids))


@torch.no_grad()
def replace_subjects(lm: LanguageModel, prompts: Sequence[TracedPrompt], *, samples: int = 1) -> Change:
    """A change of the embeddings that puts those of each prompt's partner in the place of its subject's (symmetric
    token replacement), equally in all samples.

    Raises:
        ConfigError: a prompt has no partner.
    """
    embedding = lm.module(lm.architecture.embedding)
    partners = [p.partner for p in prompts if p.partner is not None]
    if len(partners) < len(prompts):
        raise ConfigError("tracer.corruption=str: a prompt has no other subject that could replace its own")
    # Computed here, because inside the change the module would call the change again.
    values = [embedding(torch.tensor([partner.ids], device=lm.device))[0] for partner in partners]

    def change(embeddings: torch.Tensor) -> torch.Tensor:
        changed = embeddings.clone()
        for i, (prompt, value) in enumerate(zip(prompts, values, strict=True)):
            begin, end = prompt.subject_range
            changed[i * samples : (i + 1) * samples, begin:end] = value.to(changed)
        return changed

    return change


def unchanged(embeddings: torch.Tensor) -> torch.Tensor:
    """The change that changes nothing."""
    return embeddings


def on_the_way(start: Change, end: Change, *, shares: Sequence[float], prompts: int) -> Change:
    """A change of the embeddings that lies between two others.

    Args:
        shares: for each row of a prompt, how far it lies from `start` towards `end`.
        prompts: the number of prompts.
    """

    def change(embeddings: torch.Tensor) -> torch.Tensor:
        first = start(embeddings)
        share = torch.tensor(list(shares) * prompts, device=first.device, dtype=first.dtype)[:, None, None]
        return first + share * (end(embeddings) - first)

    return change
