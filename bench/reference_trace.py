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
    # Their code finds blocks by the names that GPT-2 and GPT-NeoX have. In memory it gets those of this model.
    both.num_layers = lm.n_layers
    code["trace"].layername = lambda model, number, kind=None: layer_name(lm, number, kind)  # type: ignore[attr-defined]

    def grid(prompt: TracedPrompt, kind: str | None) -> np.ndarray:
        found = code["trace"].calculate_hidden_flow(
            both, prompt.prompt, prompt.subject, samples=samples, noise=scale, window=window, kind=kind
        )
        return np.array(found["scores"], dtype=float)

    return lambda prompts: [{kind or "hidden": grid(p, kind) for kind in (None, "mlp", "attn")} for p in prompts]


def layer_name(lm: LanguageModel, number: int | None, kind: str | None = None) -> str:
    """The path of a block, of its MLP or attention, or of the embedding, as their `layername` gives it."""
    names = lm.architecture
    if kind == "embed":
        return names.embedding
    assert number is not None
    parts = {None: names.block_name, "mlp": names.mlp_name, "attn": names.attn_name}
    return parts[kind](number)
