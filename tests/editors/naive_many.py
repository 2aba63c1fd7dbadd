"""docs/method.md §12 in the plainest way: one text at a time through the whole model, weights changed in a copy, D × D
systems in float64. The tests hold the editors of many facts against this.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import naive
import torch
from torch import Tensor

from romexp.facts import EditRequest
from romexp.lm.apply_delta import stored_transposed
from romexp.lm.model import LanguageModel

Adjoint = Callable[[Tensor], Tensor]
"""Keys (D × B) to A (D × B), both float64."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of one request: ids and lookup of every context, the target, and the KL text."""

    texts: list[tuple[list[int], int]]
    target: list[int]
    held: tuple[list[int], int]


def texts_of(
    lm: LanguageModel, request: EditRequest, templates: Sequence[str], *, fact_token: str = "subject_last"
) -> Texts:
    target = naive.tokens(lm, f" {request.target_new}", special=False)
    prompts = [template.replace("{}", request.prompt) for template in templates]
    ids = [naive.tokens(lm, prompt.replace("{}", request.subject)) + target[:-1] for prompt in prompts]
    at = [naive.lookup(lm, prompt, request.subject, fact_token) for prompt in prompts]
    held = naive.tokens(lm, f"{request.subject} is a"), naive.lookup(lm, "{} is a", request.subject, fact_token)
    return Texts(texts=list(zip(ids, at, strict=True)), target=target, held=held)


def key(lm: LanguageModel, layer: int, texts: Texts, sizes: Sequence[int]) -> Tensor:
    """The mean of the groups' means; `sizes` are the groups' numbers of templates."""
    found = [naive.look(lm, lm.architecture.mlp_out_name(layer), *spot)[0] for spot in texts.texts]
    return torch.stack([torch.stack(group).mean(0) for group in split(found, sizes)]).mean(0)


def split(items: Sequence[Tensor], sizes: Sequence[int]) -> list[list[Tensor]]:
    rest = list(items)
    return [[rest.pop(0) for _ in range(size)] for size in sizes]


def memit_value(lm: LanguageModel, layer: int, texts: Texts, **optimization: float) -> Tensor:
    """z: the block's output with which the model says the target. δ on the MLP's output is δ on the block's."""
    _, initial = naive.look(lm, lm.architecture.block_name(layer), *texts.texts[0])
    mlp = lm.architecture.mlp_name(layer)
    delta, _, _ = naive.rome_delta(lm, mlp, texts.texts, texts.target, texts.held, initial, **optimization)
    return initial + delta


def pmet_value(
    lm: LanguageModel,
    layer: int,
    texts: Texts,
    *,
    steps: int,
    lr: float,
    kl_factor: float,
    clamp: float,
    decay: float = 0.5,
    said_factor: float = 0.1,
    said_kl: float = 0.01,
) -> tuple[Tensor, list[float]]:
    """v* of the MLP's output and the losses: two δ at once, and the rule for a target that is the likeliest answer."""
    paths = [lm.architecture.mlp_name(layer), lm.architecture.attn_name(layer)]
    initial = [output(lm, path, *texts.texts[0]) for path in paths]
    deltas = [torch.zeros_like(part, requires_grad=True) for part in initial]
    optimizer = torch.optim.Adam(deltas, lr=lr)

    def log_p(ids: list[int], at: int) -> Tensor:
        with ExitStack() as stack:
            for path, delta in zip(paths, deltas, strict=True):
                stack.enter_context(added(lm, path, at, delta))
            return naive.all_logits(lm, ids).log_softmax(-1)

    losses: list[float] = []
    factor, before = 1.0, None
    n = len(texts.target)
    for step in range(steps):
        held = log_p(*texts.held)[texts.held[1]]
        before = held.detach() if before is None else before
        kl = kl_factor * (held.exp() * (held - before)).sum()
        nlls, said = [], True
        for ids, at in texts.texts:
            read = log_p(ids, at)[len(ids) - n :]
            nlls.append(-read[range(n), texts.target].mean())
            said = said and read.argmax(-1).tolist() == texts.target
        wd = decay * sum(d.norm() / v.norm() ** 2 for d, v in zip(deltas, initial, strict=True))
        loss = factor * torch.stack(nlls).mean() + kl + wd
        losses.append(float(loss.detach()))
        if losses[-1] < 0.05 or (said and float(kl.detach()) <= said_kl) or step == steps - 1:
            break
        factor = said_factor if said else 1.0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for delta, value in zip(deltas, initial, strict=True):
                delta.mul_(min(1.0, float(clamp * value.norm() / delta.norm().clamp(min=1e-12))))
    return initial[0] + deltas[0].detach(), losses


@torch.no_grad()
def output(lm: LanguageModel, path: str, ids: Sequence[int], index: int) -> Tensor:
    """Output of a module, which may be a tuple, at one token of one text."""
    seen: list[Tensor] = []

    def hook(_module, _inputs, result):  # type: ignore[no-untyped-def]
        seen.append((result[0] if isinstance(result, tuple) else result)[0, index].clone())

    handle = lm.module(path).register_forward_hook(hook)
    naive.all_logits(lm, ids)
    handle.remove()
    return seen[0]


def added(lm: LanguageModel, path: str, index: int, delta: Tensor):  # type: ignore[no-untyped-def]
    """δ on the output of a module, which may be a tuple, at one token."""

    def hook(_module, _inputs, output):  # type: ignore[no-untyped-def]
        first = output[0] if isinstance(output, tuple) else output
        first = first.clone()
        first[0, index] += delta
        return (first, *output[1:]) if isinstance(output, tuple) else first

    handle = lm.module(path).register_forward_hook(hook)
    stack = ExitStack()
    stack.callback(handle.remove)
    return stack


def spread(
    lm: LanguageModel,
    texts: Sequence[Texts],
    values: Sequence[Tensor],
    sizes: Sequence[int],
    *,
    layers: Sequence[int],
    adjoint: Adjoint,
    at: str = "block",
    root: bool = False,
) -> list[Tensor]:
    """ΔW (in × out) of each layer for one batch; the layers below are edited in a copy of the model."""
    edited = replace(lm, model=copy.deepcopy(lm.model))
    last, paths = layers[-1], lm.architecture
    module = paths.block_name(last) if at == "block" else paths.mlp_name(last)
    found = []
    for i, layer in enumerate(layers):
        keys = torch.stack([key(edited, layer, each, sizes) for each in texts], dim=1)
        states = [naive.look(edited, module, *each.texts[0])[1] for each in texts]
        left = len(layers) - i
        residual = torch.stack([z - h for z, h in zip(values, states, strict=True)], dim=1)
        residual = residual / (math.sqrt(left) if root else left)
        delta = (adjoint(keys.double()) @ residual.double().T).float()
        name = f"{paths.mlp_out_name(layer)}.weight"
        with torch.no_grad():
            edited.parameter(name).add_(delta.T if stored_transposed(edited, name) else delta)
        found.append(delta)
    return found
