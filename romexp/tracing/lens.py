"""The logit lens: what the model would say from the state of each layer and token (docs/method.md §2.10)."""

from __future__ import annotations

from typing import Any

import torch

from romexp.lm.forward import Row, logits, make_inputs, run_blocks
from romexp.lm.hooks import capture
from romexp.lm.model import LanguageModel
from romexp.tracing.prompt import TracedPrompt


@torch.no_grad()
def logit_lens(lm: LanguageModel, prompt: TracedPrompt) -> dict[str, Any]:
    """Apply the final norm and the output head to the output of each block at each token of the clean run.

    Returns:
        `lens`: the probability of the answer, `lens_tokens`: the most likely token, `lens_ranks`: the answer's rank
        from 1; all [tokens][layers].
    """
    blocks = [lm.architecture.block_name(layer) for layer in range(lm.n_layers)]
    with capture(lm, blocks) as seen:
        final = run_blocks(lm, make_inputs(lm, [Row.text(prompt.ids)]))
    norm = lm.module(lm.architecture.final_norm)
    # What follows the last block is the model's own end, also where a family does more than apply the norm.
    states = [norm(seen[block])[0] for block in blocks[:-1]] + [final[0]]
    probability, best, rank = [], [], []
    for state in states:
        scores = logits(lm, state)
        probability.append(scores.softmax(dim=-1)[:, prompt.answer])
        best.append(scores.argmax(dim=-1))
        rank.append((scores > scores[:, prompt.answer, None]).sum(dim=-1) + 1)
    return {
        "lens": torch.stack(probability, dim=1).tolist(),
        "lens_tokens": [[str(lm.tokenizer.decode([t])) for t in line] for line in torch.stack(best, dim=1).tolist()],
        "lens_ranks": torch.stack(rank, dim=1).tolist(),
    }
