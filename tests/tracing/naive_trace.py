"""docs/method.md §2.1, §2.2, §2.5 word by word: one whole pass for every cell, row 0 clean, rows 1…n corrupted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from romexp.lm.model import LanguageModel


def module_name(lm: LanguageModel, kind: str, layer: int) -> str:
    a = lm.architecture
    return {"hidden": a.block_name, "mlp": a.mlp_name, "attn": a.attn_name}[kind](layer)


def _first(output):
    return output[0] if isinstance(output, tuple) else output


def _fixing(name: str, restore, last: int, frozen, keep):
    """The hook of a module: what is restored and frozen there, and kept of the token `last`."""

    def hook(module, args, output):
        x = _first(output)
        for token, wanted in restore:
            if wanted == name:
                x[1:, token] = x[0, token]
        if name in frozen:
            x[1:, last] = frozen[name]
        if keep is not None:
            keep[name] = x[1:, last].clone()
        return output

    return hook


@torch.no_grad()
def cell_score(
    lm: LanguageModel,
    ids: Sequence[int],
    span: tuple[int, int],
    answer: int,
    restore: Sequence[tuple[int, str]],
    *,
    scale: float,
    samples: int,
    replace: bool = False,
    stream: np.random.RandomState | None = None,
    frozen: dict[str, torch.Tensor] | None = None,
    keep: dict[str, torch.Tensor] | None = None,
) -> float:
    """Mean p(answer) over corrupted rows with the outputs of `restore` (token, module name) made clean.

    `frozen` forces module outputs of rows 1…n at the last subject token, `keep` collects all of them there.
    """
    stream = stream or np.random.RandomState(1)
    begin, end = span

    def corrupt(module, args, output):
        output = output.clone()
        noise = torch.from_numpy(stream.randn(samples, end - begin, output.shape[2])) * scale
        output[1:, begin:end] = noise if replace else output[1:, begin:end] + noise
        return output

    names = {name for _, name in restore} | set(frozen or {})
    if keep is not None:
        names |= {module_name(lm, kind, layer) for kind in ("mlp", "attn") for layer in range(lm.n_layers)}
    hooks = {name: _fixing(name, restore, end - 1, frozen or {}, keep) for name in names}
    hooks[lm.architecture.embedding] = corrupt
    handles = [lm.module(name).register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        logits = lm.model(input_ids=torch.tensor([list(ids)] * (samples + 1)), use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return float(logits[1:, -1].softmax(-1).mean(0)[answer])


def grid(lm, ids, span, answer, *, kind: str, window: int, **settings) -> np.ndarray:
    """(tokens × layers), windows as the published code has them."""
    out = np.zeros((len(ids), lm.n_layers))
    for token in range(len(ids)):
        for layer in range(lm.n_layers):
            layers = [layer]
            if kind != "hidden":
                layers = list(range(max(0, layer - window // 2), min(lm.n_layers, layer - (-window // 2))))
            restore = [(token, module_name(lm, kind, each)) for each in layers]
            out[token, layer] = cell_score(lm, ids, span, answer, restore, **settings)
    return out


def severed(lm, ids, span, answer, *, kind: str, second_draw: bool, **settings) -> list[float]:
    """By layer: h at the last subject token restored, the kind's outputs there as in the corrupted run."""
    curve = []
    for layer in range(lm.n_layers):
        stream, kept = np.random.RandomState(1), {}
        cell_score(lm, ids, span, answer, [], stream=stream, keep=kept, **settings)
        frozen = {name: kept[name] for name in (module_name(lm, kind, each) for each in range(lm.n_layers))}
        restore = [(span[1] - 1, module_name(lm, "hidden", layer))]
        again = stream if second_draw else np.random.RandomState(1)
        curve.append(cell_score(lm, ids, span, answer, restore, stream=again, frozen=frozen, **settings))
    return curve
