"""Finds a target value v_0 + δ, the state with which the model says the new target, by gradient descent on δ
(docs/method.md §3.6, paper §3.1). Which state it is, is up to the buckets (`Place`).

All requests of a batch are optimized together, but each has its own δ, loss and end. They do not affect each other:
the losses are summed, so each δ gets the gradient of its own loss only, and Adam works elementwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from romexp.editors.targets import read_targets
from romexp.editors.values.bucket import Bucket
from romexp.editors.values.regroup import keep_requests
from romexp.lm.forward import logits
from romexp.lm.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class ValueSettings:
    """Hyper-parameters of the optimization. They correspond to the fields of the editors.

    The last two are PMET's. Call a target *said* when its tokens are the most likely ones in every context. After a
    pass in which it is said, a request is finished if its KL term is at most `said_kl_threshold`; otherwise the NLL of
    its next pass has the further factor `said_nll_factor`. None is no such rule.

    With `unsay` the target shall become less likely: the probability exp(-NLL) takes the place of the NLL in the loss,
    and all passes are made.
    """

    n_steps: int
    lr: float
    weight_decay: float
    kl_factor: float
    clamp_norm_factor: float
    loss_threshold: float
    nll_factor: float = 1.0
    said_nll_factor: float | None = None
    said_kl_threshold: float | None = None
    unsay: bool = False


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """The losses of one request, one per pass. The terms include their factors, and `loss` is their sum (with `unsay`,
    of exp(-NLL) and the others).
    """

    loss: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    weight_decay: list[float] = field(default_factory=list)


def optimize_values(
    lm: LanguageModel, buckets: Sequence[Bucket], initial: torch.Tensor, *, settings: ValueSettings
) -> tuple[torch.Tensor, list[Trajectory]]:
    """Find δ for each request (docs/method.md §3.6).

    Args:
        buckets: the texts of all requests.
        initial: v_0, the states in the bare prompt (requests × parts × d), float32. Each part has a δ of its own, which
            is bounded by the norm of its own v_0; the decay is a sum over parts.

    Returns:
        δ (requests × parts × d), and the losses of each request.
    """
    n = len(initial)
    trajectories = [Trajectory() for _ in range(n)]
    delta = torch.zeros_like(initial, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=settings.lr)
    norms = initial.norm(dim=-1)
    nll_factor = initial.new_full((n,), settings.nll_factor)
    log_p0: dict[int, torch.Tensor] = {}
    best_delta = torch.zeros_like(initial)
    active = list(range(n))
    for step in range(settings.n_steps):
        with torch.enable_grad():
            nll, kl, said = _losses(lm, buckets, delta, log_p0)
            nll, kl = nll_factor * nll, settings.kl_factor * kl
            decay = settings.weight_decay * (delta.norm(dim=-1) / norms**2).sum(dim=-1)
            loss = ((-nll).exp() if settings.unsay else nll) + kl + decay
        _append_losses(trajectories, active, loss=loss, nll=nll, kl=kl, weight_decay=decay)
        finished = _finished(trajectories, active, said, settings)
        last = step == settings.n_steps - 1
        for i in active if last else finished:
            best_delta[i] = delta.detach()[i]
        active = [i for i in active if i not in finished]
        if last or not active:
            break
        optimizer.zero_grad()
        # The δ of a finished request was saved above. Adam may still move its row here, which has no effect.
        loss[active].sum().backward()
        optimizer.step()
        _clamp(delta, norms * settings.clamp_norm_factor)
        if settings.said_nll_factor is not None:
            nll_factor = settings.nll_factor * torch.where(said, settings.said_nll_factor, 1.0).to(initial)
        if finished:
            buckets = keep_requests(lm, buckets, set(active))
    return best_delta, trajectories


def _finished(
    trajectories: Sequence[Trajectory], active: Sequence[int], said: torch.Tensor, settings: ValueSettings
) -> set[int]:
    """The active requests that end with this pass."""
    if settings.unsay:
        return set()
    below = {i for i in active if trajectories[i].loss[-1] < settings.loss_threshold}
    if settings.said_kl_threshold is None:
        return below
    flags = said.tolist()
    return below | {i for i in active if flags[i] and trajectories[i].kl[-1] <= settings.said_kl_threshold}


def _losses(
    lm: LanguageModel, buckets: Sequence[Bucket], delta: torch.Tensor, log_p0: dict[int, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The NLL and KL(P_δ ‖ P_0) of each request, without factors, and whether its target is said in every context; all
    (requests).

    The NLL is a mean over the target's tokens and then over texts. A finished request has neither.

    Args:
        log_p0: log P_0 of the KL text of each request (vocabulary). The first call, with δ = 0, fills it.
    """
    n = len(delta)
    nll = delta.new_zeros(n)
    kl = delta.new_zeros(n)
    n_texts = delta.new_zeros(n)
    n_wrong = delta.new_zeros(n)
    for bucket in buckets:
        request = torch.tensor([t.request for t in bucket.texts], device=delta.device)
        final = bucket.final_states(lm, delta[request])
        rewriting = [i for i, t in enumerate(bucket.texts) if t.targets]
        if rewriting:
            spots = [tuple(enumerate(t.targets, start=t.first_read - t.lookup)) for t in bucket.texts]
            reading = read_targets(lm, final, spots)
            nll = nll.index_add(0, request, reading.nll())
            n_texts = n_texts.index_add(0, request[rewriting], delta.new_ones(len(rewriting)))
            n_wrong = n_wrong.index_add(0, request, (1 - reading.right()).to(n_wrong))
        kl_texts = [i for i, t in enumerate(bucket.texts) if not t.targets]
        if kl_texts:
            log_p = logits(lm, final[kl_texts, 0]).log_softmax(dim=-1)
            asked = [bucket.texts[i].request for i in kl_texts]
            for own, now in zip(asked, log_p.detach(), strict=True):
                log_p0.setdefault(own, now)
            before = torch.stack([log_p0[own] for own in asked])
            divergence = (log_p.exp() * (log_p - before)).sum(dim=-1)
            kl = kl.index_add(0, request[kl_texts], divergence)
    return nll / n_texts.clamp(min=1), kl, n_wrong == 0


@torch.no_grad()
def _clamp(delta: torch.Tensor, bound: torch.Tensor) -> None:
    """Scale each δ (requests × parts × d) whose norm exceeds its bound (requests × parts) down to it, in place."""
    norm = delta.norm(dim=-1)
    delta.mul_(torch.where(norm > bound, bound / norm.clamp(min=1e-12), torch.ones_like(norm))[..., None])


def _append_losses(
    trajectories: Sequence[Trajectory],
    active: Sequence[int],
    *,
    loss: torch.Tensor,
    nll: torch.Tensor,
    kl: torch.Tensor,
    weight_decay: torch.Tensor,
) -> None:
    """Append the loss terms of the active requests. All are copied from the device in one step."""
    table = torch.stack([loss, nll, kl, weight_decay]).tolist()
    for i in active:
        t = trajectories[i]
        for series, values in zip((t.loss, t.nll, t.kl, t.weight_decay), table, strict=True):
            series.append(values[i])
