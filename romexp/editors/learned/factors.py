"""The factors of the gradient of an edit's loss, from one forward and backward pass for a batch of requests
(docs/method.md §4.3).

A linear map y = x W has the gradient ∇W = Σ_t x_t δ_tᵀ over the tokens t, where δ_t is the gradient at its output. MEND
transforms the factors x and δ. For KE they allow its update to be written as a low-rank delta.
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
    """The inputs of an edit network for a batch of requests, right-padded to `tokens` columns.

    The last token of a text is not fed to the model, so it has no column. All tensors are float32 and detached.

    Attributes:
        inputs: by parameter, x (requests × tokens × in), the input of the linear map at each token.
        gradients: by parameter, δ (requests × tokens × out), the gradient of the request's loss at the map's output.
            `inputs[p][i].T @ gradients[p][i]` is ∇W of request i as (in × out), however the weight is stored.
        masks: by parameter (requests × tokens) bool, False where x or δ is all zero, as in padding and at tokens that
            do not affect the loss. There both x and δ are set to zero.
        ids: all tokens of each request's text, the last one included; KE's condition reads them.
        losses: mean NLL of each target's tokens before the edit (requests).
    """

    inputs: Mapping[str, torch.Tensor]
    gradients: Mapping[str, torch.Tensor]
    masks: Mapping[str, torch.Tensor]
    ids: tuple[tuple[int, ...], ...]
    losses: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)


def edit_factors(lm: LanguageModel, texts: Sequence[EditText], parameters: Sequence[str]) -> EditFactors:
    """The factors of the gradients of `parameters`, for all texts in one pass (docs/method.md §4.3).

    The autograd graph begins at the output of the first of these modules.

    Args:
        parameters: full names of weights of linear maps inside blocks.

    Raises:
        ConfigError: there is no parameter, or one is not the weight of a linear map in a block.
        ValueError: there is no text.
    """
    _check(lm, parameters)
    if not texts:
        raise ValueError("no text to edit with")
    block_inputs = make_inputs(lm, [Row.text(text.ids[:-1]) for text in texts])
    start = min(layer_of(lm, name) for name in parameters)
    with torch.no_grad():
        hidden = run_blocks(lm, block_inputs, stop=start) if start > 0 else None
    with torch.enable_grad(), _recorded_modules(lm, parameters) as recorded:
        final = run_blocks(lm, block_inputs, start=start, hidden=hidden)
        losses = read_targets(lm, final, [text.spots for text in texts]).nll()
        outputs = [recorded[name].output for name in parameters]
        gradients = torch.autograd.grad(losses.sum(), outputs)
    inputs, deltas, masks = {}, {}, {}
    for name, gradient in zip(parameters, gradients, strict=True):
        # The blocks of a large model may be on several devices, so all factors are moved to one device.
        x, delta = (part.detach().to(lm.device, torch.float32) for part in (recorded[name].input, gradient))
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
class _Recorded:
    """Input and output of one module in a pass; `output` is the very tensor that the next module gets."""

    input: torch.Tensor
    output: torch.Tensor


@contextmanager
def _recorded_modules(lm: LanguageModel, parameters: Sequence[str]) -> Iterator[dict[str, _Recorded]]:
    """Record inputs and outputs of the parameters' modules. An output without a graph becomes a leaf of a new one."""
    recorded: dict[str, _Recorded] = {}
    handles = []
    try:
        for name in parameters:
            module = lm.module(name.rpartition(".")[0])
            handles.append(module.register_forward_hook(_recording_hook(recorded, name)))
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _recording_hook(
    recorded: dict[str, _Recorded], name: str
) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        if not output.requires_grad:
            output = output.detach().requires_grad_(True)
        recorded[name] = _Recorded(input=inputs[0], output=output)
        return output

    return hook
