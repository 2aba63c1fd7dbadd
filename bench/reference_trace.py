"""Runs the authors' causal tracing from a checkout of their code (see `reference.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from reference import load, own_model

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel
from romexp.tracing.prompt import TracedPrompt

Grids = list[dict[str, np.ndarray]]


def authors_tracer(
    folder: Path, lm: LanguageModel, *, path: str, window: int, samples: int, scale: float
) -> Callable[[Sequence[TracedPrompt]], Grids]:
    """Their `calculate_hidden_flow` for the three kinds of cell, on a separate model loaded from `path`.

    Args:
        scale: standard deviation of the noise.

    Returns:
        A function from prompts to their grids, p(answer) (tokens × layers) by kind.

    Raises:
        ConfigError: `folder` is no checkout of their repository, or lacks the tracing.
    """
    code = load(folder, lm.device)
    if "trace" not in code:
        raise ConfigError(f"--reference: {folder} lacks experiments/causal_trace.py")
    both = code["trace"].ModelAndTokenizer(model=own_model(lm, path).model, tokenizer=lm.tokenizer)

    def grid(prompt: TracedPrompt, kind: str | None) -> np.ndarray:
        found = code["trace"].calculate_hidden_flow(
            both, prompt.prompt, prompt.subject, samples=samples, noise=scale, window=window, kind=kind
        )
        return np.array(found["scores"], dtype=float)

    return lambda prompts: [{kind or "hidden": grid(p, kind) for kind in (None, "mlp", "attn")} for p in prompts]
