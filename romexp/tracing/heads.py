"""Which attention heads bring the answer back, and what they attend to (docs/method.md §2.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.hooks import Change
from romexp.lm.model import LanguageModel
from romexp.tracing.module_inputs import attention_out_name, n_heads, replace_part
from romexp.tracing.prompt import TracedPrompt
from romexp.tracing.run_pair import RunPair

if TYPE_CHECKING:
    from romexp.tracing.tracer import Tracer

SHOWN_PATTERNS = 4
"""Number of heads whose whole pattern is kept: those with the largest effects."""


def head_paths(lm: LanguageModel) -> list[str]:
    """By layer the linear map whose input is the heads' outputs."""
    return [attention_out_name(lm, layer) for layer in range(lm.n_layers)]


def trace_heads(tracer: Tracer, pair: RunPair) -> dict[str, Any]:
    """The metric with the output of one head replaced at all tokens, by layer and head; and what the heads attend to.

    Returns:
        `heads`: [layers][heads]; `attention`: how much the last token attends to each token in the clean run,
        [layers][heads][tokens]; `patterns`: of the heads with the largest effects the whole pattern [tokens][tokens].
    """
    lm, heads = pair.lm, n_heads(pair.lm)
    paths = head_paths(lm)
    if tracer.method == "attribution":
        slopes = pair.gradients(paths)
        scores = [[pair.score + effect for effect in _estimates(pair, path, slopes[path], heads)] for path in paths]
    else:
        budget = tracer.batch_tokens(lm)
        scores = [
            pair.replaced(layer, path, _replacements(pair, path, heads), max_tokens=budget)
            for layer, path in enumerate(paths)
        ]
    patterns = attention_patterns(lm, pair.prompt)
    ranked = sorted(
        ((layer, head) for layer in range(lm.n_layers) for head in range(heads)),
        key=lambda place: -abs(scores[place[0]][place[1]] - pair.score),
    )
    return {
        "heads": scores,
        "attention": [layer[:, -1].tolist() for layer in patterns],
        "patterns": [
            {"layer": layer, "head": head, "pattern": patterns[layer][head].tolist()}
            for layer, head in ranked[:SHOWN_PATTERNS]
        ],
    }


@torch.no_grad()
def _estimates(pair: RunPair, path: str, slope: torch.Tensor, heads: int) -> list[float]:
    change = (pair.source[path] - pair.base[path]).float() * slope.float()
    estimates: list[float] = change.unflatten(-1, (heads, -1)).sum(dim=(1, 3)).mean(dim=0).tolist()
    return estimates


def _replacements(pair: RunPair, path: str, heads: int) -> list[Change]:
    values = pair.source[path]
    n, _, features = values.shape
    size = features // heads
    tokens = [slice(pair.first, None)] * n
    return [replace_part(tokens, [slice(h * size, (h + 1) * size)] * n, values) for h in range(heads)]


@torch.no_grad()
def attention_patterns(lm: LanguageModel, prompt: TracedPrompt) -> list[torch.Tensor]:
    """How much each token attends to each, by layer (heads × tokens × tokens), in the clean run.

    Fused attention does not give them, so the model runs with the plain one for this pass.
    """
    usual = lm.model.config._attn_implementation
    kept: dict[int, torch.Tensor] = {}
    handles = []

    def keep(layer: int):  # type: ignore[no-untyped-def]
        def hook(module: object, args: object, output: Any) -> None:
            kept[layer] = next(part for part in output[1:] if isinstance(part, torch.Tensor) and part.ndim == 4)[0]

        return hook

    try:
        if usual != "eager":
            lm.model.set_attn_implementation("eager")
        for layer in range(lm.n_layers):
            module = lm.module(lm.architecture.attn_name(layer))
            handles.append(module.register_forward_hook(keep(layer)))
        run_blocks(lm, make_inputs(lm, [Row.text(prompt.ids)]))
    finally:
        for handle in handles:
            handle.remove()
        if usual != "eager":
            lm.model.set_attn_implementation(usual)
    return [kept[layer].float().cpu() for layer in range(lm.n_layers)]
