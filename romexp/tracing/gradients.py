"""Integrated gradients of the answer's probability with respect to the token embeddings x (docs/method.md §2.6; paper
App. B, Fig. 16).

    IG_i = Σ_d x_id ∫₀¹ ∂p(answer)/∂x_id at αx dα

The baseline is the zero embedding. The integral is a Gauss-Legendre quadrature (50 points in the paper). The captum
library is not used, because here the points of many prompts share a batch.

The sum over tokens approximates p(x) - p(0) if the model is smooth between 0 and x, as GPT-2 is. A model that begins
with an RMSNorm and has no position embeddings (Llama) is discontinuous at 0, and the quadrature misses that jump.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from romexp.lm.batching import batched
from romexp.lm.forward import Row, logits, make_inputs, run_blocks
from romexp.lm.hooks import Change, patch
from romexp.lm.model import LanguageModel
from romexp.tracing.prompt import TracedPrompt


def integrated_gradients(
    lm: LanguageModel, prompts: Sequence[TracedPrompt], *, steps: int = 50, max_batch_tokens: int = 16384
) -> list[list[float]]:
    """One signed attribution per token, in units of probability, for each prompt.

    Args:
        steps: number of points of the quadrature.
        max_batch_tokens: tokens of one pass, padding included.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    points = [
        (i, float(node + 1) / 2, float(weight) / 2) for i in range(len(prompts)) for node, weight in zip(nodes, weights)
    ]
    totals = [torch.zeros(len(p.ids), dtype=torch.float64) for p in prompts]
    longest = max((len(p.ids) for p in prompts), default=1)

    def work(batch: Sequence[tuple[int, float, float]]) -> list[torch.Tensor]:
        values = _gradient_products(lm, [prompts[i] for i, _, _ in batch], [alpha for _, alpha, _ in batch])
        return list(values.double().cpu())

    products = batched(work, points, [longest] * len(points), max_tokens=max_batch_tokens)
    for (i, _, weight), value in zip(points, products, strict=True):
        totals[i] += weight * value[: len(prompts[i].ids)]
    return [total.tolist() for total in totals]


def _gradient_products(lm: LanguageModel, prompts: Sequence[TracedPrompt], alphas: Sequence[float]) -> torch.Tensor:
    """Σ_d x_id ∂p/∂x_id at αx for each row, with one α per row (rows × tokens)."""
    inputs = make_inputs(lm, [Row.text(p.ids) for p in prompts])
    scale = torch.tensor(alphas, device=inputs.ids.device, dtype=lm.dtype)[:, None, None]
    kept: list[torch.Tensor] = []

    def change(embeddings: torch.Tensor) -> torch.Tensor:
        kept.append(embeddings.detach())
        kept.append((embeddings.detach() * scale).requires_grad_(True))
        return kept[1]

    changes: dict[str, Change] = {lm.architecture.embedding: change}
    with torch.enable_grad(), patch(lm, changes):
        final = run_blocks(lm, inputs)
        last = [len(p.ids) - 1 for p in prompts]
        states = final[torch.arange(len(prompts), device=final.device), last]
        answers = torch.tensor([p.answer for p in prompts], device=final.device)
        probability = logits(lm, states).softmax(dim=-1).gather(1, answers[:, None]).sum()
        (gradient,) = torch.autograd.grad(probability, kept[1])
    return (kept[0].float() * gradient.float()).sum(dim=-1)
