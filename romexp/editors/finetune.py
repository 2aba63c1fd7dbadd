"""Fine-tuning one linear map on one fact, with or without a bound on the change: FT, FT+L, AttnEdit
(docs/method.md §4.1).

Every request of a batch trains its own copy of the map, all in one forward pass: request i's prompt runs through the
base weights plus its own ΔW_i. The blocks below the trained layer run once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from romexp.editors.base import Edit, Resources, pick_layer
from romexp.editors.targets import Spot, edit_text, read_targets
from romexp.errors import ConfigError, RecordError, result_or_error, with_errors_in_place, without_errors
from romexp.facts import EditRequest
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.forward import BlockInputs, Row, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, WeightDelta


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Hyper-parameters under the names of the authors' files (docs/method.md §4.1).

    Attributes:
        layer: the trained layer, 0-based; None takes `layer_fraction` of the depth; `traced` as for ROME.
        layer_fraction: layer = round(fraction × number of layers).
        module: what is trained in that layer: `mlp_out` (FT, FT+L) or `attn_qkv` (AttnEdit, App. I).
        lr: Adam's step size.
        num_steps: at most this many passes.
        norm_constraint: no entry may move further than this from its original (L∞); None leaves it free.
        loss_threshold: a request stops once its loss is below this.
        teacher_forcing: off is the code at HEAD: every target token is scored at the last prompt position. On feeds the
            target's earlier tokens, as the code did before 2022-08-05, from which the paper's rows very likely come.
        train_bias: train the bias too (HEAD); before 2022-08-05 only the weight was trained.
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

    def __post_init__(self) -> None:
        if self.module not in ("mlp_out", "attn_qkv"):
            raise ConfigError(f"editor.module: {self.module!r} is none of mlp_out, attn_qkv")
        if self.norm_constraint is not None and self.norm_constraint <= 0:
            raise ConfigError(f"editor.norm_constraint must be positive or null, got {self.norm_constraint}")

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """One dense delta a request, each trained as if it were alone.

        Returns:
            In the place of a request with a prompt or target without tokens, or too long for the model, its error.
        """
        texts = [
            result_or_error(partial(_text, lm, request, teacher_forcing=self.teacher_forcing)) for request in requests
        ]
        good = without_errors(texts)
        return with_errors_in_place(texts, self._edits(lm, good) if good else [])

    def _edits(self, lm: LanguageModel, texts: Sequence[_Text]) -> list[Edit]:
        layer = pick_layer(lm, layer=self.layer, fraction=self.layer_fraction)
        inputs = make_inputs(lm, [text.row for text in texts])
        with torch.no_grad():
            below = run_blocks(lm, inputs, stop=layer) if layer > 0 else None
        trained = self._trainable(lm, layer, len(texts))
        losses = self._train(lm, texts, inputs, below, trained, layer)
        return [
            Edit(
                delta=WeightDelta(terms={name: Dense(value=values[i].clone()) for name, values in trained.items()}),
                diagnostics={"layer": layer, "loss": losses[i]},
            )
            for i in range(len(texts))
        ]

    def _trainable(self, lm: LanguageModel, layer: int, n: int) -> dict[str, torch.Tensor]:
        """Zero deltas by parameter name: (requests × in × out) for weights, (requests × out) for biases."""
        architecture = lm.architecture
        modules = (
            (architecture.mlp_out_name(layer),) if self.module == "mlp_out" else architecture.attn_qkv_names(layer)
        )
        names = [f"{module}.weight" for module in modules]
        if self.train_bias:
            names += [f"{m}.bias" for m in modules if getattr(lm.module(m), "bias", None) is not None]
        shapes = {name: weight_in_out(lm, name).shape for name in names}
        return {
            name: torch.zeros((n, *shape), device=lm.parameter(name).device, dtype=torch.float32)
            for name, shape in shapes.items()
        }

    def _train(
        self,
        lm: LanguageModel,
        texts: Sequence[_Text],
        inputs: BlockInputs,
        below: torch.Tensor | None,
        trained: dict[str, torch.Tensor],
        layer: int,
    ) -> list[list[float]]:
        """Optimize `trained` in place and return the losses by pass of each request."""
        history: list[list[float]] = [[] for _ in texts]
        active = list(range(len(texts)))
        state = _Training(parameters=trained, lr=self.lr, bound=self.norm_constraint)
        for _ in range(self.num_steps):
            index = torch.tensor(active, device=inputs.ids.device)
            chosen = {name: values[index].requires_grad_(True) for name, values in trained.items()}
            hidden = below[index] if below is not None else None
            with torch.enable_grad(), _through(lm, chosen):
                final = run_blocks(lm, inputs.select(index), start=layer, hidden=hidden)
                loss = read_targets(lm, final, [texts[i].spots for i in active]).nll()
            for i, value in zip(active, loss.tolist(), strict=True):
                history[i].append(value)
            going = [place for place, value in enumerate(loss.tolist()) if value >= self.loss_threshold]
            if not going:
                break
            gradients = torch.autograd.grad(loss[going].sum(), list(chosen.values()))
            rows = torch.tensor(going, device=index.device)
            state.step(index[rows], {name: g[rows] for name, g in zip(chosen, gradients, strict=True)})
            active = [active[place] for place in going]
        return history


@dataclass(frozen=True, kw_only=True)
class _Text:
    """A prompt, with the target's earlier tokens if they are forced, and where it is to predict the target's tokens."""

    row: Row
    spots: tuple[Spot, ...]


def _text(lm: LanguageModel, request: EditRequest, *, teacher_forcing: bool) -> _Text:
    text = edit_text(lm, request.text, request.target_new)
    unknown = lm.tokenizer.unk_token_id  # masked by the reference; end of text for GPT-2
    spots = tuple(spot for spot in text.spots if spot[1] != unknown)
    if not spots:
        raise RecordError(f"target {request.target_new!r} has unknown tokens only", field="target_new")
    if teacher_forcing:
        return _Text(row=Row.text(text.ids[:-1]), spots=spots)
    last = text.target_start - 1
    return _Text(row=Row.text(text.ids[: text.target_start]), spots=tuple((last, token) for _, token in spots))


@contextmanager
def _through(lm: LanguageModel, deltas: dict[str, torch.Tensor]) -> Iterator[None]:
    """Row i of the batch runs through the base weights plus slice i of each delta; gradients flow into the deltas."""
    handles = []
    try:
        for name, value in deltas.items():
            module, _, _ = name.rpartition(".")
            handles.append(lm.module(module).register_forward_hook(_adder(value)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adder(value: torch.Tensor) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        x = args[0]
        own = value.to(x.dtype)
        return output + (own[:, None] if own.ndim == 2 else torch.bmm(x, own))

    return hook


@dataclass(frozen=True, kw_only=True)
class _Training:
    """Adam (defaults β = 0.9, 0.999, ε = 1e-8) over the slices of requests still at work, then the L∞ bound.

    torch.optim.Adam would move the slices of finished requests too, and hold their gradients.
    """

    parameters: dict[str, torch.Tensor]
    lr: float
    bound: float | None
    first: dict[str, torch.Tensor] = field(default_factory=dict)
    second: dict[str, torch.Tensor] = field(default_factory=dict)
    steps: list[int] = field(default_factory=lambda: [0])

    @torch.no_grad()
    def step(self, rows: torch.Tensor, gradients: dict[str, torch.Tensor]) -> None:
        """One update of the slices `rows`. All of them have taken every step so far."""
        self.steps[0] += 1
        t = self.steps[0]
        for name, gradient in gradients.items():
            value = self.parameters[name]
            first = self.first.setdefault(name, torch.zeros_like(value))
            second = self.second.setdefault(name, torch.zeros_like(value))
            first[rows] = m = first[rows].lerp(gradient, 0.1)
            second[rows] = v = second[rows].lerp(gradient.square(), 0.001)
            moved = value[rows] - self.lr / (1 - 0.9**t) * m / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
            value[rows] = moved if self.bound is None else moved.clamp(-self.bound, self.bound)
