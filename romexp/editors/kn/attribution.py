"""Integrated gradients of tokens' probability with respect to the MLP neurons of all layers (docs/method.md §4.2).

The neurons of layer l are scaled at the prompt's last token only. So nothing changes for the tokens before, and nothing
changes below the MLP of block l. One pass over the unchanged prompts gives keys, values and states. After that, each
scaled copy is a single token that runs from block l + 1 on and attends to the keys and values of its prompt. The copies
of a prompt are in one row and do not attend to each other, so the prompt's keys and values are not repeated for them.
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
"""Largest number of copies in one row. The attention mask grows with the square of this number."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A prompt whose prediction is attributed to neurons.

    Attributes:
        ids: token ids of the prompt.
        targets: tokens whose mean probability after the prompt is attributed.
    """

    ids: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """The result for one text.

    Attributes:
        scores: attributions (layers × neurons) float32, on the CPU.
        probability: mean probability of the targets.
        prediction: the most likely next token.
    """

    scores: torch.Tensor
    probability: float
    prediction: int


def attribute(
    lm: LanguageModel, texts: Sequence[Text], *, steps: int = 20, max_batch_tokens: int | None = None
) -> list[Attribution]:
    """score = a ⊙ (Σ_α ∂p/∂a at αa) / steps, with α in linspace(0, 1, steps), for all neurons of all layers
    (docs/method.md §4.2).

    a is the output of the MLP's first matrix at the last token, before the activation function. In a gated MLP it is
    the output of the up-projection; the neuron's value is linear in it, so it gets the same attribution.

    Args:
        steps: number of values of α.
        max_batch_tokens: largest number of scaled copies in one pass; None chooses by device.

    Raises:
        RecordError: a text is longer than the model's context.
    """
    budget = max_batch_tokens or _default_copies(lm)
    lengths = [max(len(text.ids), steps) for text in texts]
    return batched(lambda batch: _attribute(lm, batch, steps, budget), texts, lengths, max_tokens=budget)


def _default_copies(lm: LanguageModel) -> int:
    """Default number of copies in a pass. It is smaller than in scoring, because activations are kept for the backward
    pass.
    """
    return 1024 if lm.device.type == "cpu" else 2048


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layer:
    """States of one layer at the last token of each text (texts × features).

    Attributes:
        inputs: the input of the MLP.
        activations: a, the output of the MLP's first matrix.
        others: the block's output minus the MLP's output.
    """

    inputs: torch.Tensor
    activations: torch.Tensor
    others: torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _UnchangedPass:
    """The pass over some unchanged texts.

    Attributes:
        texts: the texts, one per row.
        layers: states at the last tokens, for each layer.
        prefix: keys and values of the tokens before the last, by layer (texts × heads × prefix × head size).
        prefix_width: number of columns of `prefix`.
        final: states of the last tokens after the final norm (texts × hidden size).
    """

    texts: tuple[Text, ...]
    layers: tuple[_Layer, ...]
    prefix: dict[int, tuple[torch.Tensor, torch.Tensor]]
    prefix_width: int
    final: torch.Tensor

    def copies(self, lm: LanguageModel, n: int) -> BlockInputs:
        """The inputs of a pass over n copies of each last token. A copy attends to the prefix and to itself."""
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
    base = _run_unchanged(lm, texts)
    # Several layers share a pass, because a single layer of few texts would not keep the device busy.
    n_layers = max(1, min(budget // (len(texts) * steps), ROW_COLUMNS // steps))
    scores = []
    for first in range(0, lm.n_layers, n_layers):
        layers = range(first, min(first + n_layers, lm.n_layers))
        for layer, gradient in zip(layers, _summed_gradients(lm, base, layers, steps), strict=True):
            scores.append((gradient * base.layers[layer].activations.float() / steps).cpu())
    by_text = torch.stack(scores, dim=1)
    with torch.no_grad():
        next_token = logits(lm, base.final).softmax(dim=-1)
        probability = _mean_probability(next_token, *_padded_targets(lm, texts))
    return [
        Attribution(scores=by_text[i], probability=float(probability[i]), prediction=int(next_token[i].argmax()))
        for i in range(len(texts))
    ]


@torch.no_grad()
def _run_unchanged(lm: LanguageModel, texts: Sequence[Text]) -> _UnchangedPass:
    """Run the unchanged texts. The blocks run one by one, so that only the states of the last tokens stay in memory.

    Raises:
        RecordError: a text is longer than the model's context.
    """
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
    return _UnchangedPass(
        texts=tuple(texts),
        layers=tuple(layers),
        prefix={layer: (k[:, :, :width], v[:, :, :width]) for layer, (k, v) in recorder.stored.items()},
        prefix_width=width,
        final=run_blocks(lm, block_inputs, start=lm.n_layers, hidden=hidden)[at, last],
    )


def _summed_gradients(lm: LanguageModel, base: _UnchangedPass, layers: range, steps: int) -> list[torch.Tensor]:
    """Σ_α ∂p/∂a at αa, for each of some adjacent layers (texts × neurons).

    The layers share one pass: the copies of layer l join the batch at the output of block l.
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
    return [gradient.float().sum(dim=1) for gradient in gradients]


def _mlp(lm: LanguageModel, layer: int, inputs: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
    """Output of the MLP if its first matrix returns `activations` (texts × copies × hidden size).

    The MLP runs with one token per text, so that in a gated MLP all copies of a text get the same gate.
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
    """∂p/∂(final state) at each copy (texts × copies × hidden size). Logits are computed in chunks to save memory."""
    tokens, weights = (x.repeat_interleave(final.shape[1], dim=0) for x in _padded_targets(lm, texts))
    flat = final.detach().flatten(0, 1)
    gradients: list[torch.Tensor] = []
    for first in range(0, len(flat), LOGIT_CHUNK):
        chunk = slice(first, first + LOGIT_CHUNK)
        states = flat[chunk].clone().requires_grad_(True)
        with torch.enable_grad():
            total = _mean_probability(logits(lm, states).softmax(dim=-1), tokens[chunk], weights[chunk]).sum()
        gradients += torch.autograd.grad(total, states)
    return torch.cat(gradients).view_as(final)


def _padded_targets(lm: LanguageModel, texts: Sequence[Text]) -> tuple[torch.Tensor, torch.Tensor]:
    """Target tokens, padded, and weights with which a sum over a row is the mean over its targets.

    Returns:
        Tokens and weights, both (texts × largest number of targets). Padding has weight 0.
    """
    most = max(len(text.targets) for text in texts)
    tokens = [[*text.targets, *[0] * (most - len(text.targets))] for text in texts]
    weights = [[i < len(text.targets) for i in range(most)] for text in texts]
    counted = torch.tensor(weights, dtype=torch.float32, device=lm.device)
    return torch.tensor(tokens, device=lm.device), counted / counted.sum(dim=1, keepdim=True)


def _mean_probability(probabilities: torch.Tensor, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean probability of each row's targets (rows), from probabilities (rows × vocabulary) and `_padded_targets`."""
    return (probabilities.gather(1, tokens) * weights).sum(dim=1)
