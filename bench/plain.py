"""The same work in the plainest code, written from docs/method.md §3.5–3.7, §4.1 and §5.2 alone.

It takes one request at a time. Every pass goes through the whole model and over all tokens, and each prompt is run once
for each target. It computes nothing with romexp, except that `applied` adds an edit to the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from timing import Stopwatch
from torch import Tensor, nn
from workload import Edited, Variant, Workload, prompts_of

from romexp.editors.finetune import FineTune
from romexp.editors.rome.editor import Rome
from romexp.facts import Case, EditRequest
from romexp.lm.apply_delta import applied, stored_transposed
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, LowRank, WeightDelta


def plain() -> Variant:
    """The variant without batches of records and without reuse of results."""
    return Variant(name="plain", edit=_edit, generate=None)


def _edit(work: Workload, watch: Stopwatch) -> Edited:
    deltas, nlls = [], []
    inverse = None if work.moment is None else torch.linalg.inv(work.moment.matrix.double()).to(work.lm.device)
    for case in work.cases:
        with watch("edit"):
            if isinstance(work.editor, Rome):
                delta = _rome(work.lm, case.request, work.templates, work.editor, inverse)
            else:
                delta = _finetune(work.lm, case.request, work.editor)
        with watch("metrics"), applied(work.lm, delta):
            nlls.append(_nlls(work.lm, case))
        deltas.append(delta)
    return Edited(deltas=deltas, nlls=nlls)


def _inputs(lm: LanguageModel, texts: Sequence[str]) -> dict[str, Tensor]:
    """The texts as one right-padded batch: token ids and attention mask (texts × tokens)."""
    batch = lm.tokenizer(
        list(texts), padding=True, padding_side="right", return_tensors="pt", return_token_type_ids=False
    )
    return {name: value.to(lm.device) for name, value in batch.items()}


def _n_tokens(lm: LanguageModel, text: str, *, special: bool = False) -> int:
    return len(lm.tokenizer(text, add_special_tokens=special)["input_ids"])


def _target(lm: LanguageModel, request: EditRequest) -> list[int]:
    return list(lm.tokenizer(f" {request.target_new.strip()}", add_special_tokens=False)["input_ids"])


def _lookup(lm: LanguageModel, template: str, subject: str, fact_token: str) -> int:
    """Position of the token of docs/method.md §3.4; prefix, subject and suffix are tokenized separately."""
    prefix, suffix = template.split("{}")
    subject = f" {subject.strip()}" if prefix else subject
    before, own, after = (_n_tokens(lm, part) for part in (prefix.removesuffix(" "), subject, suffix))
    first = _n_tokens(lm, "", special=True) + before
    return {
        "subject_first": first,
        "subject_last": first + own - 1,
        "subject_first_after_last": first + own if after else first + own - 1,
        "last": first + own + after - 1,
    }[fact_token]


# ROME ----------------------------------------------------------------------------------------------------------------


def _rome(
    lm: LanguageModel, request: EditRequest, templates: Sequence[str], editor: Rome, inverse: Tensor | None
) -> WeightDelta:
    """The rank-one update (docs/method.md §3.7), with u from the mean key (§3.5) and v* found by Adam (§3.6)."""
    assert editor.layer is not None
    memory = lm.architecture.mlp_out_name(editor.layer)
    prompts = [template.replace("{}", request.prompt, 1) for template in templates]
    lookups = [_lookup(lm, prompt, request.subject, editor.fact_token) for prompt in prompts]
    texts = [prompt.replace("{}", request.subject, 1) for prompt in prompts]
    keys, _ = _input_and_output(lm, memory, texts, lookups)
    key, output = (side[0] for side in _input_and_output(lm, memory, texts[:1], lookups[:1]))
    direction = keys.mean(dim=0)
    if inverse is not None and editor.mom2_adjustment:
        direction = (inverse @ direction.double()).float()
    u = direction / direction.norm()
    value = _value(lm, request, prompts, lookups, editor)
    right = (value - output) / (key @ u)
    return WeightDelta(terms={f"{memory}.weight": LowRank(left=u[:, None], right=right[:, None])})


@torch.no_grad()
def _input_and_output(
    lm: LanguageModel, path: str, texts: Sequence[str], columns: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Input and output of a module at one token of each text (texts × features), in float32."""
    seen: list[tuple[Tensor, Tensor]] = []
    rows = range(len(texts))
    handle = lm.module(path).register_forward_hook(
        lambda _m, x, y: seen.append((x[0][rows, columns].float(), y[rows, columns].float()))
    )
    lm.model(**_inputs(lm, texts), use_cache=False)
    handle.remove()
    return seen[0]


def _value(
    lm: LanguageModel, request: EditRequest, prompts: Sequence[str], lookups: Sequence[int], editor: Rome
) -> Tensor:
    """v* = v_0 + δ (features). Each update of δ takes a pass of all texts through the whole model."""
    assert editor.layer is not None
    target = _target(lm, request)
    forced = str(lm.tokenizer.decode(target[:-1], clean_up_tokenization_spaces=False))
    texts = [prompt.replace("{}", request.subject, 1) + forced for prompt in prompts] + [f"{request.subject} is a"]
    columns = [*lookups, _lookup(lm, "{} is a", request.subject, editor.fact_token)]
    inputs = _inputs(lm, texts)
    lengths = inputs["attention_mask"].sum(dim=1)[:-1]
    spots = lengths[:, None] - len(target) + torch.arange(len(target), device=lm.device)[None]
    rows = torch.arange(len(prompts), device=lm.device)[:, None]
    mlp = lm.architecture.mlp_name(editor.layer)
    initial = _output_of_first(lm, mlp, inputs, columns[0])
    delta = torch.zeros_like(initial, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=editor.v_lr)
    before: Tensor | None = None
    for step in range(editor.v_num_grad_steps):
        optimizer.zero_grad()
        with _delta_added(lm, mlp, columns, delta):
            log_p = lm.model(**inputs, use_cache=False).logits.float().log_softmax(dim=-1)
        nll = -log_p[rows, spots, torch.tensor(target, device=lm.device)[None]].mean()
        after = log_p[-1, columns[-1]]
        before = after.detach() if before is None else before
        kl = (after.exp() * (after - before)).sum()
        loss = nll + editor.kl_factor * kl + editor.v_weight_decay * delta.norm() / initial.norm() ** 2
        if loss < editor.v_loss_threshold or step == editor.v_num_grad_steps - 1:
            break
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            bound = editor.clamp_norm_factor * initial.norm()
            if delta.norm() > bound:
                delta.mul_(bound / delta.norm())
    return initial + delta.detach()


@torch.no_grad()
def _output_of_first(lm: LanguageModel, path: str, inputs: dict[str, Tensor], column: int) -> Tensor:
    """Output of a module at one token of the first text (features), in float32."""
    seen: list[Tensor] = []
    handle = lm.module(path).register_forward_hook(lambda _m, _x, y: seen.append(y[0, column].float()))
    lm.model(**{name: value[:1] for name, value in inputs.items()}, use_cache=False)
    handle.remove()
    return seen[0]


@contextmanager
def _delta_added(lm: LanguageModel, path: str, columns: Sequence[int], delta: Tensor) -> Iterator[None]:
    """Add δ to the output of a module, at one token of each text."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[range(len(columns)), columns] += delta.to(output.dtype)
        return output

    handle = lm.module(path).register_forward_hook(hook)
    yield
    handle.remove()


# Fine-tuning ---------------------------------------------------------------------------------------------------------


def _finetune(lm: LanguageModel, request: EditRequest, editor: FineTune) -> WeightDelta:
    """Fine-tuning with the defaults of docs/method.md §4.1.

    Weight and bias are trained, and every target token is scored at the prompt's last position.
    """
    assert editor.layer is not None
    memory = lm.architecture.mlp_out_name(editor.layer)
    names = [f"{memory}.{kind}" for kind in ("weight", "bias") if getattr(lm.module(memory), kind, None) is not None]
    weights = {name: lm.parameter(name).detach().clone().requires_grad_() for name in names}
    originals = {name: value.detach().clone() for name, value in weights.items()}
    optimizer = torch.optim.Adam(list(weights.values()), lr=editor.lr)
    inputs, target = _inputs(lm, [request.text]), _target(lm, request)
    for _ in range(editor.num_steps):
        optimizer.zero_grad()
        logits = torch.func.functional_call(lm.model, weights, kwargs={**inputs, "use_cache": False}).logits
        loss = -logits[0, -1].float().log_softmax(dim=-1)[target].mean()
        if loss < editor.loss_threshold:
            break
        loss.backward()
        optimizer.step()
        if editor.norm_constraint is not None:
            with torch.no_grad():
                for name, value in weights.items():
                    value.clamp_(originals[name] - editor.norm_constraint, originals[name] + editor.norm_constraint)
    change = {name: value.detach() - originals[name] for name, value in weights.items()}
    return WeightDelta(
        terms={name: Dense(value=c.T if stored_transposed(lm, name) else c) for name, c in change.items()}
    )


# Metrics -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _nlls(lm: LanguageModel, case: Case) -> list[float]:
    """Mean NLL of the tokens of both targets after every prompt (docs/method.md §5.2), from one padded batch."""
    request, prompts = case.request, prompts_of(case)
    pairs = [(prompt, f" {target}") for prompt in prompts for target in (request.target_new, request.target_true)]
    log_p = lm.model(**_inputs(lm, [a + b for a, b in pairs]), use_cache=False).logits.float().log_softmax(dim=-1)
    nlls = []
    for row, (prompt, target) in enumerate(pairs):
        start = _n_tokens(lm, prompt, special=True)
        ids = lm.tokenizer(target, add_special_tokens=False)["input_ids"]
        nlls.append(-float(log_p[row, range(start - 1, start - 1 + len(ids)), ids].mean()))
    return nlls
