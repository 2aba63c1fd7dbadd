"""docs/method.md §3.4–3.7 and §4.1 in the plainest way: one text at a time through the whole model, nothing reused.

The tests hold the package against this. It takes the map of a model's parts from the package, and nothing else of it:
no forward pass, no deltas, no positions from offsets. It computes in the model's own dtype; in float64 it is the truth.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel


def tokens(lm: LanguageModel, text: str, *, special: bool = True) -> list[int]:
    """Token ids; `special` puts what the tokenizer puts before every text."""
    return list(lm.tokenizer(text, add_special_tokens=special)["input_ids"])


def all_logits(lm: LanguageModel, ids: Sequence[int]) -> Tensor:
    """(tokens × vocabulary)."""
    return lm.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]


# ROME ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RomeResult:
    """u (D), Λ' (d), δ (d), v* (d), the bare prompt's key k (D) and output w (d), k* (D), and the losses by pass."""

    u: Tensor
    right: Tensor
    delta: Tensor
    target_value: Tensor
    key: Tensor
    output: Tensor
    mean_key: Tensor
    losses: list[float] = field(default_factory=list)
    kls: list[float] = field(default_factory=list)


def lookup(lm: LanguageModel, template: str, subject: str, fact_token: str) -> int:
    """docs/method.md §3.4: prefix, subject and suffix tokenized one by one and counted.

    Two departures, both meant: `last` is the prompt's last token, not a pad or target token, and a token that is
    nothing but the space before the subject is not its first token.
    """
    prefix, suffix = template.split("{}")
    subject = subject.strip()
    if prefix:
        assert prefix.endswith(" ")
        prefix, subject = prefix[:-1], f" {subject}"
    a, b, c = (len(tokens(lm, part, special=False)) for part in (prefix, subject, suffix))
    first = len(tokens(lm, "")) + a
    lone_space = lm.tokenizer.decode(tokens(lm, subject, special=False)[:1]) == " "
    return {
        "subject_first": first + lone_space,
        "subject_last": first + b - 1,
        "subject_first_after_last": first + b if c else first + b - 1,
        "last": first + b + c - 1,
    }[fact_token]


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def look(lm: LanguageModel, path: str, ids: Sequence[int], index: int) -> tuple[Tensor, Tensor]:
    """Input and output of a module at one token of one text."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = lm.module(path).register_forward_hook(
        lambda _m, x, y: seen.append((x[0][0, index].clone(), _first(y)[0, index].clone()))
    )
    all_logits(lm, ids)
    handle.remove()
    return seen[0]


@contextmanager
def added(lm: LanguageModel, path: str, index: int, delta: Tensor) -> Iterator[None]:
    """δ on the output of a module at one token."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output = output.clone()
        output[0, index] += delta
        return output

    handle = lm.module(path).register_forward_hook(hook)
    yield
    handle.remove()


def rome(
    lm: LanguageModel,
    request: EditRequest,
    templates: Sequence[str],
    *,
    layer: int,
    moment: Tensor | None,
    keys: str = "mixed",
    fact_token: str = "subject_last",
    **optimization: float,
) -> RomeResult:
    """One edit by docs/method.md §3.5–3.7; `moment` None is mom2_adjustment off. `optimization` is `rome_delta`'s."""
    mlp, memory = lm.architecture.mlp_name(layer), lm.architecture.mlp_out_name(layer)
    target = tokens(lm, f" {request.target_new}", special=False)
    prompts = [template.replace("{}", request.prompt) for template in templates]
    ids = [tokens(lm, prompt.replace("{}", request.subject)) + target[:-1] for prompt in prompts]
    at = [lookup(lm, prompt, request.subject, fact_token) for prompt in prompts]
    pairs = [look(lm, memory, text, index) for text, index in zip(ids, at, strict=True)]
    (key, output), mean_key = pairs[0], torch.stack([k for k, _ in pairs]).mean(0)
    mean_output = torch.stack([w for _, w in pairs]).mean(0)

    chosen = key if keys == "prompt" else mean_key
    direction = chosen if moment is None else torch.linalg.solve(moment.to(chosen.dtype), chosen)
    u = direction / direction.norm()

    held = tokens(lm, f"{request.subject} is a"), lookup(lm, "{} is a", request.subject, fact_token)
    _, initial = look(lm, mlp, ids[0], at[0])
    texts = list(zip(ids, at, strict=True))
    delta, losses, kls = rome_delta(lm, mlp, texts, target, held, initial, **optimization)
    own_key, own_output = (mean_key, mean_output) if keys == "averaged" else (key, output)
    value = initial + delta
    right = (value - own_output) / (own_key @ u)
    made = {"key": key, "output": output, "mean_key": mean_key}
    return RomeResult(u=u, right=right, delta=delta, target_value=value, losses=losses, kls=kls, **made)


def rome_delta(
    lm: LanguageModel,
    mlp: str,
    texts: Sequence[tuple[list[int], int]],
    target: Sequence[int],
    held: tuple[list[int], int],
    initial: Tensor,
    *,
    steps: float = 20,
    lr: float = 0.5,
    decay: float = 0.5,
    kl_factor: float = 0.0625,
    clamp: float = 4.0,
    threshold: float = 0.05,
) -> tuple[Tensor, list[float], list[float]]:
    """δ at the looked-up token of each text, by gradient descent (docs/method.md §3.6); losses and their KL terms."""
    delta = torch.zeros_like(initial, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=lr)
    losses, kls, before = [], [], None
    for step in range(int(steps)):
        with added(lm, mlp, held[1], delta):
            log_p = all_logits(lm, held[0])[held[1]].log_softmax(-1)
        before = log_p.detach() if before is None else before
        kl = kl_factor * (log_p.exp() * (log_p - before)).sum()
        loss = rome_nll(lm, mlp, texts, target, delta) + kl + decay * delta.norm() / initial.norm() ** 2
        losses.append(float(loss.detach()))
        kls.append(float(kl.detach()))
        if losses[-1] < threshold or step == steps - 1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            if delta.norm() > clamp * initial.norm():
                delta.mul_(clamp * initial.norm() / delta.norm())
    return delta.detach(), losses, kls


def rome_nll(
    lm: LanguageModel, mlp: str, texts: Sequence[tuple[list[int], int]], target: Sequence[int], delta: Tensor
) -> Tensor:
    """Mean over texts and target tokens of -log p, with δ on the output of a module at each text's own token."""
    nll = torch.zeros((), dtype=delta.dtype)
    for text, index in texts:
        with added(lm, mlp, index, delta):
            log_p = all_logits(lm, text).log_softmax(-1)
        first = len(text) - len(target)
        nll = nll - sum(log_p[first + t, y] for t, y in enumerate(target)) / len(target) / len(texts)
    return nll


# Fine-tuning ---------------------------------------------------------------------------------------------------------


def finetune(
    lm: LanguageModel,
    request: EditRequest,
    *,
    trained: Callable[[str], bool],
    lr: float = 5e-4,
    steps: int = 25,
    bound: float | None = None,
    threshold: float = 1e-2,
    teacher_forcing: bool = False,
) -> tuple[dict[str, Tensor], list[float]]:
    """docs/method.md §4.1 on a copy of the model: the change of each trained parameter, as it is stored; the losses."""
    model = copy.deepcopy(lm.model)
    weights = {name: p.requires_grad_(True) for name, p in model.named_parameters() if trained(name)}
    originals = {name: p.detach().clone() for name, p in weights.items()}
    optimizer = torch.optim.Adam(weights.values(), lr=lr)
    prompt = tokens(lm, request.text)
    target = tokens(lm, f" {request.target_new}", special=False)
    ids = prompt + target[:-1] if teacher_forcing else prompt
    losses = []
    for _ in range(steps):
        log_p = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        at = [len(prompt) - 1 + (t if teacher_forcing else 0) for t in range(len(target))]
        loss = -log_p[at, target].mean()
        losses.append(float(loss.detach()))
        if losses[-1] < threshold:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if bound is not None:
            with torch.no_grad():
                for name, p in weights.items():
                    p.clamp_(originals[name] - bound, originals[name] + bound)
    return {name: p.detach() - originals[name] for name, p in weights.items()}, losses
