"""Fine-tuning the linear maps of one layer on one fact, with or without a bound on the change: FT, FT+L and AttnEdit
(docs/method.md §4.1; paper §3.2, App. E, App. I).

Each request of a batch trains its own change ΔW_i, and one forward pass serves all requests: the prompt of request i
runs through the base weights plus ΔW_i. The blocks below the trained layer run only once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from romexp.bounds import check_bounds
from romexp.editors.base import Edit, Goal, Resources, pick_layer
from romexp.editors.filters import Filter, check_filter, filtered_edits
from romexp.editors.targets import Spot, edit_text, read_targets
from romexp.errors import ConfigError, RecordError, result_or_error, with_errors_in_place, without_errors
from romexp.facts import EditRequest
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.batching import by_length, pass_tokens, training_tokens
from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, WeightDelta


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """FT, FT+L and AttnEdit. Hyper-parameters have the names of the authors' files (docs/method.md §4.1).

    Attributes:
        name: label in tables.
        layer: the trained layer, counted from 0. None: round(`layer_fraction` · number of layers). `traced`: as for
            `romexp.editors.rome.editor.Rome`.
        layer_fraction: used if `layer` is None.
        module: what is trained in that layer: `mlp_out` (FT, FT+L) or `attn_qkv` (AttnEdit).
        lr: step size of Adam.
        num_steps: the largest number of passes.
        norm_constraint: bound ε of the absolute change of each entry (L∞ norm); None sets no bound.
        loss_threshold: training of a request ends when its loss is below this.
        teacher_forcing: if true, each target token is predicted after the target tokens before it. If false, all are
            predicted at the last token of the prompt, as in the authors' code since 2022-08-05. The paper's results
            very likely come from the code before that date.
        train_bias: train the bias too, as in the authors' code since 2022-08-05; before, only the weight was trained.
        filter: `rect` or `prune` holds the edit back (`romexp.editors.filters`); None does not.

    Raises:
        ConfigError: `module` is unknown, or `norm_constraint` is not positive.
    """

    name: str = "FT"
    layer: int | str | None = None
    layer_fraction: float = 0.0
    module: str = "mlp_out"
    lr: float = 5e-4
    num_steps: int = 25
    norm_constraint: float | None = None
    loss_threshold: float = 1e-2
    teacher_forcing: bool = False
    train_bias: bool = True
    filter: Filter | None = None

    def __post_init__(self) -> None:
        check_filter(self.filter)
        if self.module not in ("mlp_out", "attn_qkv"):
            raise ConfigError(f"editor.module: {self.module!r} is none of mlp_out, attn_qkv")
        if self.norm_constraint is not None and self.norm_constraint <= 0:
            raise ConfigError(f"editor.norm_constraint must be positive or null, got {self.norm_constraint}")
        check_bounds(
            self,
            "editor",
            finite=("norm_constraint", "loss_threshold"),
            from_0=("lr",),
            from_1=("num_steps",),
            shares=("layer_fraction",),
        )

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """Train one dense delta for each request, independently of the other requests.

        Returns:
            For each request its edit; or a `RecordError` if its prompt or target has no token, all target tokens are
            unknown, or the text is too long for the model.
        """
        texts = [
            result_or_error(partial(_text, lm, request, teacher_forcing=self.teacher_forcing)) for request in requests
        ]
        good = without_errors(texts)
        edits = with_errors_in_place(texts, self._edits(lm, good, resources.goal) if good else [])
        return filtered_edits(lm, edits, self.filter)

    def _edits(self, lm: LanguageModel, texts: Sequence[_Text], goal: Goal) -> list[Edit]:
        layer = pick_layer(lm, layer=self.layer, fraction=self.layer_fraction)
        trained = [self._trainable(lm, layer) for _ in texts]
        losses = self._train(lm, texts, trained, layer, goal)
        return [
            Edit(
                delta=WeightDelta(terms={name: Dense(value=value.detach()) for name, value in own.items()}),
                diagnostics={"layer": layer, "loss": history},
            )
            for own, history in zip(trained, losses, strict=True)
        ]

    def _trainable(self, lm: LanguageModel, layer: int) -> dict[str, torch.Tensor]:
        """The delta of one request before training, all zero, by parameter name (in × out; for biases out)."""
        architecture = lm.architecture
        modules = (
            (architecture.mlp_out_name(layer),) if self.module == "mlp_out" else architecture.attn_qkv_names(layer)
        )
        names = [f"{module}.weight" for module in modules]
        if self.train_bias:
            names += [f"{m}.bias" for m in modules if getattr(lm.module(m), "bias", None) is not None]
        return {
            name: torch.zeros(
                weight_in_out(lm, name).shape,
                device=lm.parameter(name).device,
                dtype=torch.float32,
                requires_grad=True,
            )
            for name in names
        }

    def _train(
        self,
        lm: LanguageModel,
        texts: Sequence[_Text],
        trained: Sequence[dict[str, torch.Tensor]],
        layer: int,
        goal: Goal,
    ) -> list[list[float]]:
        """Optimize the delta of each request in place, and return the losses of each by pass."""
        history: list[list[float]] = [[] for _ in texts]
        below = _below(lm, [text.row for text in texts for _ in range(goal.copies)], layer)
        done_below = -1.0 if goal.unsay else self.loss_threshold
        parameters = [value for own in trained for value in own.values()]
        # A delta without a gradient, of a request that is finished, stays as it is.
        optimizer = _adam(parameters, lr=self.lr)
        active = list(range(len(texts)))
        for _ in range(self.num_steps):
            optimizer.zero_grad()
            for group in _groups(lm, [texts[i].row for i in active], copies=goal.copies):
                mine = [active[place] for place in group]
                loss = _losses(lm, [texts[i] for i in mine], [trained[i] for i in mine], below, mine, layer, goal)
                for i, value in zip(mine, loss.tolist(), strict=True):
                    history[i].append(value)
                unfinished = [place for place, i in enumerate(mine) if history[i][-1] >= done_below]
                if unfinished:
                    loss[unfinished].sum().backward()
            for i in active:
                if history[i][-1] < done_below:
                    for value in trained[i].values():
                        value.grad = None
            active = [i for i in active if history[i][-1] >= done_below]
            if not active:
                break
            optimizer.step()
            if self.norm_constraint is not None:
                with torch.no_grad():
                    for i in active:
                        for value in trained[i].values():
                            value.clamp_(-self.norm_constraint, self.norm_constraint)
        return history


@dataclass(frozen=True, kw_only=True)
class _Text:
    """The text of one request in tokens.

    Attributes:
        row: the prompt; with teacher forcing, also the target without its last token.
        spots: where each target token is predicted.
    """

    row: Row
    spots: tuple[Spot, ...]


def _text(lm: LanguageModel, request: EditRequest, *, teacher_forcing: bool) -> _Text:
    text = edit_text(lm, request.text, request.target_new)
    # The authors' code does not count unknown tokens. For GPT-2 the unknown token is the end-of-text token.
    unknown = lm.tokenizer.unk_token_id
    spots = tuple(spot for spot in text.spots if spot[1] != unknown)
    if not spots:
        raise RecordError(f"target {request.target_new!r} has unknown tokens only", field="target_new")
    if teacher_forcing:
        return _Text(row=Row.text(text.ids[:-1]), spots=spots)
    last = text.target_start - 1
    return _Text(row=Row.text(text.ids[: text.target_start]), spots=tuple((last, token) for _, token in spots))


def _adam(parameters: Sequence[torch.Tensor], *, lr: float) -> torch.optim.Adam:
    """Adam; where the device can, as one kernel, which reads each number once."""
    try:
        return torch.optim.Adam(parameters, lr=lr, fused=True)
    except RuntimeError:  # torch has no such kernel for this device
        return torch.optim.Adam(parameters, lr=lr)


def _groups(lm: LanguageModel, rows: Sequence[Row], *, copies: int) -> list[list[int]]:
    """The places of the texts that run together, by what passes cost; each has some copies."""
    lengths = [copies * len(row) for row in rows]
    return by_length(lengths, max_tokens=training_tokens(lm.device), per_pass=pass_tokens(lm.device))


@torch.no_grad()
def _below(lm: LanguageModel, rows: Sequence[Row], layer: int) -> torch.Tensor | None:
    """What the trained layer gets, which no change in it affects (texts × tokens × hidden size); None for layer 0."""
    return run_blocks(lm, make_inputs(lm, rows), stop=layer) if layer > 0 else None


@torch.enable_grad()
def _losses(
    lm: LanguageModel,
    texts: Sequence[_Text],
    deltas: Sequence[dict[str, torch.Tensor]],
    below: torch.Tensor | None,
    places: Sequence[int],
    layer: int,
    goal: Goal,
) -> torch.Tensor:
    """The loss of each of some texts, each with its own delta (texts).

    Args:
        below: as `_below` returns it, for all texts with their copies.
        places: the places of these texts among all.
    """
    copies = range(goal.copies)
    inputs = make_inputs(lm, [text.row for text in texts for _ in copies])
    rows = [place * goal.copies + copy for place in places for copy in copies]
    hidden = None if below is None else below[rows, : inputs.ids.shape[1]]
    stacked = {name: torch.stack([own[name] for own in deltas]) for name in deltas[0]}
    with _with_deltas(lm, stacked, copies=goal.copies):
        final = run_blocks(lm, inputs, start=layer, hidden=hidden)
        nll = read_targets(lm, final, [text.spots for text in texts for _ in copies]).nll()
    each = (-nll).exp() if goal.unsay else nll
    return each.reshape(-1, goal.copies).mean(dim=1)


@contextmanager
def _with_deltas(lm: LanguageModel, deltas: dict[str, torch.Tensor], *, copies: int) -> Iterator[None]:
    """Inside the context, the i-th `copies` rows of the batch run through the base weights plus slice i of each delta.

    Gradients flow into the deltas.
    """
    handles = []
    try:
        for name, value in deltas.items():
            module, _, _ = name.rpartition(".")
            handles.append(lm.module(module).register_forward_hook(_addition_hook(value, copies)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _addition_hook(
    value: torch.Tensor, copies: int
) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        x = args[0]
        own = value.to(x.dtype)
        if own.ndim == 2:
            return output + own.repeat_interleave(copies, dim=0)[:, None]
        by_request = x.reshape(len(own), -1, x.shape[-1])
        return output + torch.bmm(by_request, own).reshape(output.shape)

    return hook
