"""Which single neurons of the MLPs bring the answer back (docs/method.md §2.10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel
from romexp.tracing.module_inputs import replace_part
from romexp.tracing.run_pair import RunPair

if TYPE_CHECKING:
    from romexp.tracing.tracer import Tracer

PROMOTED = 3
"""Number of tokens by which a neuron is described."""


@dataclass(frozen=True, kw_only=True)
class _Neuron:
    layer: int
    token: int
    number: int
    estimate: float


def neuron_paths(lm: LanguageModel) -> list[str]:
    """By layer the MLP's second linear map, whose input is the activations of the neurons."""
    return [lm.architecture.mlp_out_name(layer) for layer in range(lm.n_layers)]


def trace_neurons(tracer: Tracer, pair: RunPair) -> dict[str, Any]:
    """The neurons whose activation at one token has the largest effect.

    All are estimated from one backward pass; the best `tracer.top` are computed, unless the method is `attribution`.

    Returns:
        `neurons`: largest effect first, each with layer, token, number, `estimate` and `effect` (differences from the
        base run's metric; `effect` is None where it is not computed), the activations `clean` and `corrupted` (averaged
        over copies), and the tokens whose logits it raises most.
    """
    lm = pair.lm
    paths = neuron_paths(lm)
    chosen = _largest(pair, paths, tracer.top)
    effects: dict[_Neuron, float | None] = dict.fromkeys(chosen)
    if tracer.method != "attribution":
        for layer in sorted({neuron.layer for neuron in chosen}):
            own = [neuron for neuron in chosen if neuron.layer == layer]
            values = pair.source[paths[layer]]
            n = len(values)
            changes = [
                replace_part([slice(e.token, e.token + 1)] * n, [slice(e.number, e.number + 1)] * n, values)
                for e in own
            ]
            scores = pair.replaced(layer, paths[layer], changes, max_tokens=tracer.batch_tokens(lm))
            effects.update((neuron, score - pair.score) for neuron, score in zip(own, scores, strict=True))
        chosen = sorted(chosen, key=lambda neuron: -abs(effects[neuron] or 0.0))
    return {"neurons": [_described(pair, paths[each.layer], each, effects[each]) for each in chosen]}


def _largest(pair: RunPair, paths: list[str], count: int) -> list[_Neuron]:
    """The neurons with the largest estimates, at the tokens from the subject on; not those that nothing reads."""
    slopes = pair.gradients(paths)
    found: list[_Neuron] = []
    for layer, path in enumerate(paths):
        change = ((pair.source[path] - pair.base[path]).float() * slopes[path].float()).mean(dim=0)[pair.first :]
        best = change.abs().flatten().topk(min(count, change.numel())).indices.tolist()
        for place in best:
            token, number = divmod(place, change.shape[1])
            estimate = float(change[token, number])
            found.append(_Neuron(layer=layer, token=pair.first + token, number=number, estimate=estimate))
    return sorted(found, key=lambda neuron: -abs(neuron.estimate))[:count]


@torch.no_grad()
def _described(pair: RunPair, path: str, neuron: _Neuron, effect: float | None) -> dict[str, Any]:
    runs = (pair.source, pair.base) if pair.restores else (pair.base, pair.source)
    clean, corrupted = (float(run[path][:, neuron.token, neuron.number].mean()) for run in runs)
    return {
        "layer": neuron.layer,
        "token": neuron.token,
        "neuron": neuron.number,
        "estimate": neuron.estimate,
        "effect": effect,
        "clean": clean,
        "corrupted": corrupted,
        "promotes": promoted_tokens(pair.lm, neuron.layer, neuron.number, sign=1 if clean >= corrupted else -1),
    }


@torch.no_grad()
def promoted_tokens(lm: LanguageModel, layer: int, neuron: int, *, sign: int = 1) -> list[str]:
    """The tokens whose logits the neuron raises most where its activation grows (or falls, for sign -1), if what it
    writes went to the output head directly.
    """
    written = weight_in_out(lm, lm.architecture.mlp_out_name(layer) + ".weight")[neuron]
    head = lm.model.get_output_embeddings().weight
    best = (sign * (head @ written.to(head))).topk(PROMOTED).indices.tolist()
    return [str(lm.tokenizer.decode([token])) for token in best]
