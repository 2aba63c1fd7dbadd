"""Integrated gradients of a token's probability over the MLP neurons of every layer (docs/method.md §4.2).

A neuron of layer l is scaled at the prompt's last token only, so everything left of that token and everything up to
block l stays as it is: one pass over the prompts gives keys, values and states, and each scaled copy is then a single
token that looks back at its prompt's keys and values, from block l + 1 on. The copies of a prompt stand side by side in
one row and do not see each other, so that the prompt's keys and values are never repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from romexp.lm.batching import batched
from romexp.lm.forward import BlockInputs, KeysAndValues, Row, logits, make_inputs, run_blocks, suffix_inputs
from romexp.lm.hooks import capture, first_tensor, patch
from romexp.lm.model import LanguageModel
from romexp.lm.scoring import LOGIT_CHUNK

ROW_COLUMNS = 160
"""Copies in one row: every one of them is masked against all others, which costs their square."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A prompt, and the tokens whose mean probability after it is attributed to neurons."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """What one text gives.

    Attributes:
        scores: (layers × neurons) float32, on the CPU.
        probability: of the targets, their mean.
        prediction: the most likely next token.
    """

    scores: torch.Tensor
    probability: float
    prediction: int


def attribute(
    lm: LanguageModel, texts: Sequence[Text], *, steps: int = 20, max_batch_tokens: int | None = None
) -> list[Attribution]:
    """score = (Σ_α ∂p/∂a at αa) ⊙ a / steps over α in linspace(0, 1, steps), for every neuron of every layer.

    a is the output of the MLP's first matrix at the last token, before the activation function. Gated MLPs: of the
    up-projection. Their neuron is linear in it, so that this is the attribution to the neuron's own value.

    Args:
        max_batch_tokens: scaled copies that are in one pass; None takes what suits the device.

    Raises:
        RecordError: a text is longer than the model's context.
    """
    budget = max_batch_tokens or _copies(lm)
    lengths = [max(len(text.ids), steps) for text in texts]
    return batched(lambda batch: _attribute(lm, batch, steps, budget), texts, lengths, max_tokens=budget)


def _copies(lm: LanguageModel) -> int:
    """Fewer than in scoring: what every block above computes is kept for the way back."""
    return 1024 if lm.device.type == "cpu" else 2048


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layer:
    """One layer at each text's last token (texts × features).

    Attributes:
        inputs: what enters the MLP.
        activations: the output of its first matrix, a.
        others: the block's output without the MLP's part.
    """

    inputs: torch.Tensor
    activations: torch.Tensor
    others: torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Base:
    """The unchanged pass over some texts.

    Attributes:
        texts: one a row.
        layers: their last tokens, layer by layer.
        prefix: keys and values left of the last token, by layer (texts × heads × prefix × head size).
        prefix_width: columns of `prefix`.
        final: normed final states of the last tokens (texts × hidden size).
    """

    texts: tuple[Text, ...]
    layers: tuple[_Layer, ...]
    prefix: dict[int, tuple[torch.Tensor, torch.Tensor]]
    prefix_width: int
    final: torch.Tensor

    def copies(self, lm: LanguageModel, n: int) -> BlockInputs:
        """n copies of each last token; a copy sees the prefix and itself."""
        rows = []
        for text in self.texts:
            start = len(text.ids) - 1
            rows.append(
                Row(
                    ids=text.ids[:-1] + (text.ids[-1],) * n,
                    positions=(*range(start), *(start,) * n),
                    segments=(0,) * start + tuple(range(1, n + 1)),
                )
            )
        return suffix_inputs(lm, rows, [len(text.ids) - 1 for text in self.texts], prefix_width=self.prefix_width)


def _attribute(lm: LanguageModel, texts: Sequence[Text], steps: int, budget: int) -> list[Attribution]:
    base = _look(lm, texts)
    # As many layers side by side as the budget allows: with few texts a single one would leave the machine idle.
    n_layers = max(1, min(budget // (len(texts) * steps), ROW_COLUMNS // steps))
    scores = []
    for first in range(0, lm.n_layers, n_layers):
        layers = range(first, min(first + n_layers, lm.n_layers))
        for layer, gradient in zip(layers, _summed_gradients(lm, base, layers, steps), strict=True):
            scores.append((gradient.float() * base.layers[layer].activations.float() / steps).cpu())
    by_text = torch.stack(scores, dim=1)
    with torch.no_grad():
        next_token = logits(lm, base.final).softmax(dim=-1)
        probability = _mean_probability(next_token, *_wanted(lm, texts))
    return [
        Attribution(scores=by_text[i], probability=float(probability[i]), prediction=int(next_token[i].argmax()))
        for i in range(len(texts))
    ]


@torch.no_grad()
def _look(lm: LanguageModel, texts: Sequence[Text]) -> _Base:
    """One pass, a block at a time, so that only the last tokens are kept of each."""
    block_inputs = make_inputs(lm, [Row.text(text.ids) for text in texts])
    last = torch.tensor([len(text.ids) - 1 for text in texts], device=lm.device)
    at = torch.arange(len(texts), device=lm.device)
    recorder = KeysAndValues(record=True)
    layers, hidden = [], None
    for layer in range(lm.n_layers):
        mlp, mlp_in = lm.architecture.mlp_name(layer), lm.architecture.mlp_in_name(layer)
        with capture(lm, [mlp], at="input") as inputs, capture(lm, [mlp, mlp_in]) as outputs:
            hidden = run_blocks(lm, block_inputs, start=layer, stop=layer + 1, hidden=hidden, cache=recorder)
        layers.append(
            _Layer(
                inputs=inputs[mlp][at, last],
                activations=outputs[mlp_in][at, last],
                others=hidden[at, last] - outputs[mlp][at, last],
            )
        )
    width = int(last.max())
    return _Base(
        texts=tuple(texts),
        layers=tuple(layers),
        prefix={layer: (k[:, :, :width], v[:, :, :width]) for layer, (k, v) in recorder.stored.items()},
        prefix_width=width,
        final=run_blocks(lm, block_inputs, start=lm.n_layers, hidden=hidden)[at, last],
    )


def _summed_gradients(lm: LanguageModel, base: _Base, layers: range, steps: int) -> list[torch.Tensor]:
    """Σ_α ∂p/∂a at αa, for each of some adjacent layers (texts × neurons).

    Layer l's copies join those of the layers below it at the output of block l.
    """
    widest = base.copies(lm, steps * len(layers))
    alphas = torch.linspace(0, 1, steps, device=lm.device, dtype=lm.dtype)
    cache = KeysAndValues(prefix=base.prefix)
    scaled: list[torch.Tensor] = []
    hidden: torch.Tensor | None = None
    with torch.enable_grad():
        for layer in layers:
            state = base.layers[layer]
            scaled.append((alphas[:, None] * state.activations[:, None]).requires_grad_(True))
            joining = state.others[:, None] + _mlp(lm, layer, state.inputs, scaled[-1])
            hidden = joining if hidden is None else torch.cat([hidden, joining], dim=1)
            stop = None if layer == layers[-1] else layer + 2
            block_inputs = _first_columns(widest, hidden.shape[1], base.prefix_width)
            hidden = run_blocks(lm, block_inputs, start=layer + 1, stop=stop, hidden=hidden, cache=cache)
    assert hidden is not None
    gradients = torch.autograd.grad(hidden, scaled, _probability_gradient(lm, hidden, base.texts))
    return [gradient.sum(dim=1) for gradient in gradients]


def _mlp(lm: LanguageModel, layer: int, inputs: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
    """Output of the MLP (texts × copies × hidden size) with its first matrix's output set to `activations`.

    It is called with one token a text; what a gated MLP multiplies with is then the same for all copies.
    """
    with patch(lm, {lm.architecture.mlp_in_name(layer): lambda _: activations}):
        return first_tensor(lm.module(lm.architecture.mlp_name(layer))(inputs[:, None]))


def _first_columns(block_inputs: BlockInputs, n: int, prefix_width: int) -> BlockInputs:
    return BlockInputs(
        ids=block_inputs.ids[:, :n],
        positions=block_inputs.positions[:, :n],
        mask=block_inputs.mask[:, :, :n, : prefix_width + n],
    )


def _probability_gradient(lm: LanguageModel, final: torch.Tensor, texts: Sequence[Text]) -> torch.Tensor:
    """∂p/∂(final state) at every copy, (texts × copies × hidden size), a limited number of logits at a time."""
    tokens, weights = (x.repeat_interleave(final.shape[1], dim=0) for x in _wanted(lm, texts))
    flat = final.detach().flatten(0, 1)
    gradients: list[torch.Tensor] = []
    for first in range(0, len(flat), LOGIT_CHUNK):
        chunk = slice(first, first + LOGIT_CHUNK)
        states = flat[chunk].clone().requires_grad_(True)
        with torch.enable_grad():
            total = _mean_probability(logits(lm, states).softmax(dim=-1), tokens[chunk], weights[chunk]).sum()
        gradients += torch.autograd.grad(total, states)
    return torch.cat(gradients).view_as(final)


def _wanted(lm: LanguageModel, texts: Sequence[Text]) -> tuple[torch.Tensor, torch.Tensor]:
    """Target tokens (texts × most targets), and weights of the same shape that make a mean of each row."""
    most = max(len(text.targets) for text in texts)
    tokens = [[*text.targets, *[0] * (most - len(text.targets))] for text in texts]
    weights = [[i < len(text.targets) for i in range(most)] for text in texts]
    counted = torch.tensor(weights, dtype=torch.float32, device=lm.device)
    return torch.tensor(tokens, device=lm.device), counted / counted.sum(dim=1, keepdim=True)


def _mean_probability(probabilities: torch.Tensor, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (probabilities.gather(1, tokens) * weights).sum(dim=1)
