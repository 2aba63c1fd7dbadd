"""The gradient of an edit's loss in factors: one forward and backward pass for a whole batch of requests
(docs/method.md §4.3).

A linear map y = x W has ∇W = Σ_t x_t δ_tᵀ over the tokens t, with δ_t the gradient at its output. The factors x and δ
are what MEND transforms, and what lets KE's full-size update travel as a low-rank delta.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from romexp.editors.targets import EditText, read_targets
from romexp.errors import ConfigError
from romexp.lm.forward import Row, layer_of, make_inputs, run_blocks
from romexp.lm.model import LanguageModel


@dataclass(frozen=True, kw_only=True, eq=False)
class EditFactors:
    """What an edit network is given: N requests, padded on the right to `tokens` columns.

    A text's last token is only predicted, so it has no column. All tensors are float32 and detached.

    Attributes:
        inputs: by parameter, x (requests × tokens × in): the module's input at every token.
        gradients: by parameter, δ (requests × tokens × out): the gradient of the request's own loss at its output.
            `inputs[p][i].T @ gradients[p][i]` is ∇W of request i as (in × out), however the weight is stored.
        masks: by parameter (requests × tokens), False where x or δ is all zero, as in padding and wherever the loss
            does not look; both are exactly zero there.
        ids: the whole text of each request, last token included (what KE's condition reads).
        losses: (requests) mean NLL over the target's tokens, before the edit.
    """

    inputs: Mapping[str, torch.Tensor]
    gradients: Mapping[str, torch.Tensor]
    masks: Mapping[str, torch.Tensor]
    ids: tuple[tuple[int, ...], ...]
    losses: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)


def edit_factors(lm: LanguageModel, texts: Sequence[EditText], parameters: Sequence[str]) -> EditFactors:
    """Inputs and output gradients of `parameters`, all requests in one pass.

    Blocks below the lowest of them run without a graph, and nothing is kept for what lies before the first module.

    Args:
        parameters: full names of weights of linear maps inside blocks.

    Raises:
        ConfigError: no parameter, or one that is no weight of a linear map in a block.
    """
    _check(lm, parameters)
    if not texts:
        raise ValueError("no text to edit with")
    block_inputs = make_inputs(lm, [Row.text(text.ids[:-1]) for text in texts])
    start = min(layer_of(lm, name) for name in parameters)
    with torch.no_grad():
        hidden = run_blocks(lm, block_inputs, stop=start) if start > 0 else None
    with torch.enable_grad(), _watched(lm, parameters) as seen:
        final = run_blocks(lm, block_inputs, start=start, hidden=hidden)
        losses = read_targets(lm, final, [text.spots for text in texts]).nll()
        outputs = [seen[name].output for name in parameters]
        gradients = torch.autograd.grad(losses.sum(), outputs)
    inputs, deltas, masks = {}, {}, {}
    for name, gradient in zip(parameters, gradients, strict=True):
        # To one place, since the blocks of a large model may lie on several devices.
        x, delta = (part.detach().to(lm.device, torch.float32) for part in (seen[name].input, gradient))
        mask = (x != 0).any(dim=-1) & (delta != 0).any(dim=-1)
        inputs[name], deltas[name], masks[name] = x * mask[..., None], delta * mask[..., None], mask
    ids = tuple(text.ids for text in texts)
    return EditFactors(inputs=inputs, gradients=deltas, masks=masks, ids=ids, losses=losses.detach())


def _check(lm: LanguageModel, parameters: Sequence[str]) -> None:
    if not parameters:
        raise ConfigError("no parameter to edit")
    for name in parameters:
        try:
            weight = lm.parameter(name)
            layer_of(lm, name)
        except (AttributeError, ValueError) as error:
            raise ConfigError(f"{lm.name!r} has no {name!r} inside a block") from error
        if weight.ndim != 2 or not name.endswith(".weight"):
            raise ConfigError(f"{name} is not the weight of a linear map")


@dataclass
class _Seen:
    """What went through one module; `output` is the tensor that the rest of the model works with."""

    input: torch.Tensor
    output: torch.Tensor


@contextmanager
def _watched(lm: LanguageModel, parameters: Sequence[str]) -> Iterator[dict[str, _Seen]]:
    """Keep the modules' inputs and outputs; the first outputs become the leaves of the graph."""
    seen: dict[str, _Seen] = {}
    handles = []
    try:
        for name in parameters:
            module = lm.module(name.rpartition(".")[0])
            handles.append(module.register_forward_hook(_watcher(seen, name)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _watcher(seen: dict[str, _Seen], name: str) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        if not output.requires_grad:
            output = output.detach().requires_grad_(True)
        seen[name] = _Seen(input=inputs[0], output=output)
        return output

    return hook
