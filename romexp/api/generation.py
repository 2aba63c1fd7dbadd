"""Texts and next tokens of a model, edited or not, in the form that a notebook shows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from romexp.api import checks
from romexp.errors import ConfigError, RecordError, raise_first_error
from romexp.lm.apply_delta import overlay
from romexp.lm.forward import Row, check_known, check_length, context_length, logits, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.precision import in_own_precision
from romexp.lm.sampling import Sampler, generate
from romexp.lm.tokens import encode
from romexp.lm.weight_delta import WeightDelta
from romexp.seeds import derive_seed


@in_own_precision
def continue_texts(
    lm: LanguageModel,
    prompt: str | Sequence[str],
    max_new_tokens: int,
    *,
    top_k: int,
    seed: int,
    delta: WeightDelta | None,
) -> str | list[str]:
    """Continue one prompt, or each prompt of a list, by at most `max_new_tokens` tokens.

    What is drawn depends on the seed and the prompt, not on the other prompts of the list.

    Raises:
        ConfigError: a prompt that is no text or empty, or a number that is too small.
        RecordError: a prompt and its new tokens are longer than the model's context.
    """
    prompts = checks.texts(prompt, "prompt")
    new = checks.at_least(max_new_tokens, 1, "max_new_tokens")
    k = checks.at_least(top_k, 1, "top_k")
    texts: dict[int, str] = {}
    by_length: dict[int, list[int]] = {}
    for i, encoding in enumerate(encode(lm.tokenizer, prompts)):
        by_length.setdefault(len(encoding), []).append(i)
    for length, places in by_length.items():  # `Sampler.max_length` counts the prompt too, so equal lengths go together
        if length + new > (limit := context_length(lm)):
            raise RecordError(f"a prompt of {length} tokens and {new} new ones, but {lm.name!r} sees {limit} at once")
        written = generate(
            lm,
            [prompts[i] for i in places],
            sampler=Sampler(max_length=length + new, top_k=k),
            seeds=[derive_seed(seed, "generate", prompts[i], prompts[:i].count(prompts[i])) for i in places],
            deltas=[delta] * len(places),
            stop_at_end=True,
        )
        texts.update(zip(places, raise_first_error(written), strict=True))
    return texts[0] if isinstance(prompt, str) else [texts[i] for i in range(len(prompts))]


def next_tokens(lm: LanguageModel, prompt: str, n: int, *, delta: WeightDelta | None) -> pd.DataFrame:
    """The n most likely next tokens: `token` and `probability`, most likely first.

    Raises:
        ConfigError: a prompt that is no text or empty, or n below 1.
        RecordError: the prompt is longer than the model's context.
    """
    (probabilities,) = next_token_probabilities(lm, [checks.text(prompt, "prompt")], [delta])
    top = probabilities.topk(min(checks.at_least(n, 1, "n"), len(probabilities)))
    tokens = [str(lm.tokenizer.decode([token])) for token in top.indices.tolist()]
    return pd.DataFrame({"token": tokens, "probability": top.values.tolist()})


@in_own_precision
@torch.no_grad()
def next_token_probabilities(
    lm: LanguageModel, prompts: Sequence[str], deltas: Sequence[WeightDelta | None]
) -> torch.Tensor:
    """Probabilities of the next token after each prompt, through its edit: (prompts × vocabulary).

    Raises:
        ConfigError: a prompt without tokens.
        RecordError: a prompt is longer than the model's context.
    """
    rows = [Row.text(encoding.ids) for encoding in encode(lm.tokenizer, prompts)]
    for prompt, row in zip(prompts, rows, strict=True):
        if not len(row):
            raise ConfigError(f"prompt: {prompt!r} has no token")
        check_length(lm, len(row))
        check_known(lm, row.ids)
    with overlay(lm, deltas):
        final = run_blocks(lm, make_inputs(lm, rows))
    last = final[torch.arange(len(rows), device=final.device), [len(row) - 1 for row in rows]]
    return logits(lm, last).softmax(dim=-1)
