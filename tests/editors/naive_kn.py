"""docs/method.md §4.2 in the plainest way: one layer, one point of the integral, one token, one whole pass at a time.

The tests hold the package against this; it takes nothing of it but the map of a model's parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel


def tokens(lm: LanguageModel, text: str, *, special: bool = True) -> list[int]:
    return list(lm.tokenizer(text, add_special_tokens=special)["input_ids"])


def next_logits(lm: LanguageModel, ids: Sequence[int]) -> Tensor:
    return lm.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1]


def activation(lm: LanguageModel, layer: int, ids: Sequence[int]) -> Tensor:
    """Output of the MLP's first matrix at the last token."""
    seen: list[Tensor] = []
    module = lm.module(lm.architecture.mlp_in_name(layer))
    handle = module.register_forward_hook(lambda _m, _x, y: seen.append(y[0, -1].detach().clone()))
    next_logits(lm, ids)
    handle.remove()
    return seen[0]


def probability_with(lm: LanguageModel, layer: int, ids: Sequence[int], token: int, value: Tensor) -> Tensor:
    """p(token) where that output is `value`."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.cat([output[:, :-1], value[None, None]], dim=1)

    handle = lm.module(lm.architecture.mlp_in_name(layer)).register_forward_hook(hook)
    probability = next_logits(lm, ids).softmax(dim=-1)[token]
    handle.remove()
    return probability


def token_scores(lm: LanguageModel, ids: Sequence[int], token: int, *, steps: int) -> Tensor:
    """(layers × neurons)."""
    rows = []
    for layer in range(lm.n_layers):
        own = activation(lm, layer, ids)
        total = torch.zeros_like(own)
        for alpha in torch.linspace(0, 1, steps):
            value = (alpha * own).requires_grad_(True)
            (gradient,) = torch.autograd.grad(probability_with(lm, layer, ids, token, value), value)
            total += gradient
        rows.append(total * own / steps)
    return torch.stack(rows)


def scores(
    lm: LanguageModel, prompt: Sequence[int], truth: Sequence[int], *, steps: int, extend_prompt: bool = False
) -> Tensor:
    """Mean over the tokens of the ground truth."""
    ids, parts = list(prompt), []
    for token in truth:
        parts.append(token_scores(lm, ids, token, steps=steps))
        if extend_prompt:
            ids = [*ids, int(next_logits(lm, ids).argmax())]
    return torch.stack(parts).mean(dim=0)


def edited_weights(
    lm: LanguageModel,
    request: EditRequest,
    *,
    steps: int,
    threshold: float = 0.2,
    prediction_factor: float = 2.0,
    target_factor: float = 1.0,
) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
    """Every second matrix as (neurons × hidden size), edited a row at a time, and the (layer, neuron) pairs."""
    prompt = tokens(lm, request.text)
    found = scores(lm, prompt, tokens(lm, request.target_true, special=False), steps=steps)
    pairs = [
        (layer, neuron)
        for layer in range(found.shape[0])
        for neuron in range(found.shape[1])
        if found[layer, neuron] > threshold * found.max()
    ]
    embedding = lm.module(lm.architecture.embedding).weight
    said = int(next_logits(lm, prompt).argmax())
    weights = {}
    for layer in range(lm.n_layers):
        module = lm.module(lm.architecture.mlp_out_name(layer))
        stored = module.weight.detach().clone()
        weights[f"{lm.architecture.mlp_out_name(layer)}.weight"] = stored.T if isinstance(module, nn.Linear) else stored
    for layer, neuron in pairs:
        row = weights[f"{lm.architecture.mlp_out_name(layer)}.weight"][neuron]
        row -= prediction_factor * embedding[said]
        for token in tokens(lm, request.target_new, special=False):
            row += target_factor * embedding[token]
    return weights, pairs
