"""v*: the MLP output that makes the model say the new target, found by gradient descent on δ
(docs/method.md §3.6, paper §3.1).

All requests of a batch are optimized side by side. Each has its own δ, loss and stopping point, exactly as if it were
alone: the losses are summed, so the gradient of one δ does not see the others, and Adam works elementwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from romexp.editors.rome.bucket import Bucket
from romexp.editors.targets import read_targets
from romexp.lm.forward import logits
from romexp.lm.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class ValueSettings:
    """Hyper-parameters of the optimization, under the names of the editor's fields."""

    n_steps: int
    lr: float
    weight_decay: float
    kl_factor: float
    clamp_norm_factor: float
    loss_threshold: float


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Losses of one request by pass; `loss` is the sum of the three terms."""

    loss: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    weight_decay: list[float] = field(default_factory=list)


def optimize_values(
    lm: LanguageModel, buckets: Sequence[Bucket], initial: torch.Tensor, *, layer: int, settings: ValueSettings
) -> tuple[torch.Tensor, list[Trajectory]]:
    """Find δ for every request.

    Args:
        initial: v_0, the clean MLP output of each request's own prompt at the lookup (requests × d), float32.

    Returns:
        δ (requests × d), v* = v_0 + δ, and the losses by pass.
    """
    n = len(initial)
    trajectories = [Trajectory() for _ in range(n)]
    delta = torch.zeros_like(initial, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=settings.lr)
    norms = initial.norm(dim=-1)
    log_p0: list[torch.Tensor | None] = [None] * len(buckets)
    best_delta = torch.zeros_like(initial)
    active = list(range(n))
    for step in range(settings.n_steps):
        with torch.enable_grad():
            nll, kl = _losses(lm, buckets, delta, log_p0, layer=layer)
            decay = settings.weight_decay * delta.norm(dim=-1) / norms**2
            loss = nll + settings.kl_factor * kl + decay
        _log(trajectories, active, loss=loss, nll=nll, kl=settings.kl_factor * kl, weight_decay=decay)
        finished = {i for i in active if trajectories[i].loss[-1] < settings.loss_threshold}
        last = step == settings.n_steps - 1
        for i in active if last else finished:
            best_delta[i] = delta.detach()[i]
        active = [i for i in active if i not in finished]
        if last or not active:
            break
        optimizer.zero_grad()
        # Finished rows have no text in the buckets any more; their δ was kept above and may drift.
        loss[active].sum().backward()
        optimizer.step()
        _clamp(delta, norms * settings.clamp_norm_factor)
        if finished:
            buckets, log_p0 = _without(buckets, log_p0, set(active))
    return best_delta, trajectories


def _losses(
    lm: LanguageModel,
    buckets: Sequence[Bucket],
    delta: torch.Tensor,
    log_p0: list[torch.Tensor | None],
    *,
    layer: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """NLL, averaged over the target's tokens and then over texts, and KL(P_δ ‖ P_0), per request (requests).

    The first call, at δ = 0, fills `log_p0` with log P_0 (texts × vocabulary) of each bucket's KL texts.
    """
    n = len(delta)
    nll = delta.new_zeros(n)
    kl = delta.new_zeros(n)
    texts_of = delta.new_zeros(n)
    for b, bucket in enumerate(buckets):
        request = torch.tensor([t.request for t in bucket.texts], device=delta.device)
        final = bucket.final_states(lm, delta[request], layer)
        rewriting = [i for i, t in enumerate(bucket.texts) if t.targets]
        if rewriting:
            spots = [tuple(enumerate(t.targets, start=t.first_read - t.lookup)) for t in bucket.texts]
            nll = nll.index_add(0, request, read_targets(lm, final, spots).nll())
            texts_of = texts_of.index_add(0, request[rewriting], delta.new_ones(len(rewriting)))
        others = [i for i, t in enumerate(bucket.texts) if not t.targets]
        if others:
            log_p = logits(lm, final[others, 0]).log_softmax(dim=-1)
            before = log_p0[b]
            if before is None:
                before = log_p0[b] = log_p.detach()
            divergence = (log_p.exp() * (log_p - before)).sum(dim=-1)
            kl = kl.index_add(0, request[others], divergence)
    return nll / texts_of.clamp(min=1), kl


@torch.no_grad()
def _clamp(delta: torch.Tensor, bound: torch.Tensor) -> None:
    """Rescale each δ to its bound where it is longer."""
    norm = delta.norm(dim=-1)
    delta.mul_(torch.where(norm > bound, bound / norm.clamp(min=1e-12), torch.ones_like(norm))[:, None])


def _log(
    trajectories: Sequence[Trajectory],
    active: Sequence[int],
    *,
    loss: torch.Tensor,
    nll: torch.Tensor,
    kl: torch.Tensor,
    weight_decay: torch.Tensor,
) -> None:
    """Append the terms of the requests still at work; one copy from the device for all of them."""
    table = torch.stack([loss, nll, kl, weight_decay]).tolist()
    for i in active:
        t = trajectories[i]
        for series, values in zip((t.loss, t.nll, t.kl, t.weight_decay), table, strict=True):
            series.append(values[i])


def _without(
    buckets: Sequence[Bucket], log_p0: Sequence[torch.Tensor | None], active: set[int]
) -> tuple[list[Bucket], list[torch.Tensor | None]]:
    """Drop the texts of requests that have finished."""
    kept, kept_log_p0 = [], []
    for bucket, log_p in zip(buckets, log_p0, strict=True):
        rows = [i for i, text in enumerate(bucket.texts) if text.request in active]
        if not rows:
            continue
        kl_rows = [i for i, text in enumerate(bucket.texts) if not text.targets]
        mine = [place for place, i in enumerate(kl_rows) if bucket.texts[i].request in active]
        kept.append(bucket if len(rows) == len(bucket.texts) else bucket.select(rows))
        kept_log_p0.append(log_p[mine] if log_p is not None else None)
    return kept, kept_log_p0
