"""Texts cut at the edited token, so that a step of the optimization computes only what δ changes (docs/method.md §9.3).

δ is added to a state in layer l at one token. The tokens before it do not change. The tokens after it do not change up
to layer l. So a step runs only the tokens from the edited one on, through the blocks that δ changes, and attends to
cached keys and values of the tokens before.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from romexp.editors.values.prefix import Prefix, keys_and_values_before
from romexp.editors.values.texts import EditText
from romexp.lm.batching import by_length, pass_tokens, training_tokens
from romexp.lm.forward import BlockInputs, KeysAndValues, make_inputs, run_blocks, suffix_inputs
from romexp.lm.hooks import Change, capture, patch
from romexp.lm.model import LanguageModel

Place = Literal["mlp", "block", "mlp_and_attention"]
"""The states to which δ is added, at the edited token in layer l.

- `mlp`: the MLP's output (ROME).
- `block`: the block's output (MEMIT). Since the MLP's output is added to the residual stream, adding δ to the one or to
  the other is the same computation. What differs is the initial value v_0, by which δ is bounded.
- `mlp_and_attention`: the outputs of the MLP and of the attention module, with a δ of its own for each (PMET).
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bucket:
    """A batch of texts that run together. Their suffixes are the tokens from the edited one (`lookup`) on.

    Attributes:
        texts: the texts, one per row.
        layer: l.
        place: the states that δ is added to.
        block_inputs: inputs of a pass over the suffixes (rows × suffix) that attends to the prefix.
        hidden: what the first block that δ changes gets at the suffixes (rows × suffix × hidden size): the output of
            block l, or for `mlp_and_attention` its input.
        prefix: keys and values of the tokens before the suffixes, by layer (rows × heads × prefix × head size).
        keys: input of the edited matrix at the lookup token (rows × D).
        outputs: output of the edited matrix at the lookup token (rows × d).
        initial: the states that δ is added to, without δ (rows × parts × d). `mlp_and_attention` has two parts in this
            order; the other places have one.
    """

    texts: tuple[EditText, ...]
    layer: int
    place: Place
    block_inputs: BlockInputs
    hidden: torch.Tensor
    prefix: Prefix
    keys: torch.Tensor
    outputs: torch.Tensor
    initial: torch.Tensor

    def select(self, rows: Sequence[int]) -> Bucket:
        """The bucket with only these rows."""
        index = torch.tensor(list(rows), device=self.hidden.device)
        return Bucket(
            texts=tuple(self.texts[i] for i in rows),
            layer=self.layer,
            place=self.place,
            block_inputs=self.block_inputs.select(index),
            hidden=self.hidden[index],
            prefix={layer: (k[index], v[index]) for layer, (k, v) in self.prefix.items()},
            keys=self.keys[index],
            outputs=self.outputs[index],
            initial=self.initial[index],
        )

    def final_states(self, lm: LanguageModel, delta: torch.Tensor) -> torch.Tensor:
        """Run the suffixes with `delta` (rows × parts × d) added at the lookup tokens.

        Returns:
            States after the final norm (rows × suffix × hidden size).
        """
        hidden, changes = self.hidden, nullcontext(lm)
        if self.place == "mlp_and_attention":
            names = (lm.architecture.mlp_name(self.layer), lm.architecture.attn_name(self.layer))
            parts = zip(names, delta.unbind(dim=1), strict=True)
            changes = patch(lm, {name: _add_to_first(own) for name, own in parts})  # type: ignore[assignment]
        else:
            hidden = _add_to_first(delta[:, 0])(hidden)
        start = first_block(self.layer, self.place)
        with changes:
            return run_blocks(
                lm, self.block_inputs, start=start, hidden=hidden, cache=KeysAndValues(prefix=self.prefix)
            )


def _add_to_first(delta: torch.Tensor) -> Change:
    """Adds a vector to each row's first token: (rows × d) to (rows × tokens × d)."""

    def change(states: torch.Tensor) -> torch.Tensor:
        return torch.cat([states[:, :1] + delta[:, None].to(states.dtype), states[:, 1:]], dim=1)

    return change


def first_block(layer: int, place: Place) -> int:
    """The first block that must run again when δ changes."""
    return layer if place == "mlp_and_attention" else layer + 1


def make_buckets(lm: LanguageModel, texts: Sequence[EditText], *, layer: int, place: Place = "mlp") -> list[Bucket]:
    """Group the texts of all requests by suffix length, so that a pass over all costs least (`by_length`), and compute
    what δ does not change.

    Args:
        layer: l, the layer in which δ is added.
    """
    return [_bucket(lm, [texts[i] for i in group], layer=layer, place=place) for group in bucket_groups(lm, texts)]


def bucket_groups(lm: LanguageModel, texts: Sequence[EditText]) -> list[list[int]]:
    """The indices of the texts of each bucket."""
    lengths = [len(text.row) - text.lookup for text in texts]
    return by_length(lengths, max_tokens=training_tokens(lm.device), per_pass=pass_tokens(lm.device))


@torch.no_grad()
def _bucket(lm: LanguageModel, texts: Sequence[EditText], *, layer: int, place: Place) -> Bucket:
    rows = [text.row for text in texts]
    starts = [text.lookup for text in texts]
    at = torch.arange(len(rows), device=lm.device)
    lookup = torch.tensor(starts, device=lm.device)
    paths = lm.architecture
    block, mlp, mlp_out = paths.block_name(layer), paths.mlp_name(layer), paths.mlp_out_name(layer)
    start = first_block(layer, place)
    entering = [mlp_out, block] if start == layer else [mlp_out]
    watched = [mlp, mlp_out, *([paths.attn_name(layer)] if place == "mlp_and_attention" else [])]
    with capture(lm, entering, at="input") as inputs, capture(lm, watched) as outputs:
        after = run_blocks(lm, make_inputs(lm, rows), stop=layer + 1)
    hidden = inputs[block] if start == layer else after
    width = max(len(row) - first for row, first in zip(rows, starts, strict=True))
    columns = (lookup[:, None] + torch.arange(width, device=lm.device)[None]).clamp(max=hidden.shape[1] - 1)
    prefix = keys_and_values_before(lm, texts, hidden, start=start)
    initial = [after] if place == "block" else [outputs[name] for name in watched if name != mlp_out]
    return Bucket(
        texts=tuple(texts),
        layer=layer,
        place=place,
        block_inputs=suffix_inputs(lm, rows, starts, prefix_width=next((k.shape[2] for k, _ in prefix.values()), 0)),
        hidden=hidden[at[:, None], columns],
        prefix=prefix,
        keys=inputs[mlp_out][at, lookup],
        outputs=outputs[mlp_out][at, lookup],
        initial=torch.stack([states[at, lookup] for states in initial], dim=1),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class AtLookups:
    """What buckets hold at the lookup tokens of rewriting texts, by request and template, in float32.

    Attributes:
        keys: inputs of the edited matrix (requests × templates × D).
        outputs: outputs of the edited matrix (requests × templates × d).
        initial: v_0, the states that δ is added to, in the bare prompt (requests × parts × d).
    """

    keys: torch.Tensor
    outputs: torch.Tensor
    initial: torch.Tensor


def at_lookups(buckets: Sequence[Bucket], *, n_requests: int, n_templates: int) -> AtLookups:
    """Order what the buckets hold at the lookup tokens."""
    first = buckets[0]
    keys = first.keys.new_empty((n_requests, n_templates, first.keys.shape[1]), dtype=torch.float32)
    outputs = first.outputs.new_empty((n_requests, n_templates, first.outputs.shape[1]), dtype=torch.float32)
    initial = first.initial.new_empty((n_requests, *first.initial.shape[1:]), dtype=torch.float32)
    for bucket in buckets:
        for row, text in enumerate(bucket.texts):
            if text.template is None:
                continue
            keys[text.request, text.template] = bucket.keys[row].float()
            outputs[text.request, text.template] = bucket.outputs[row].float()
            if text.template == 0:
                initial[text.request] = bucket.initial[row].float()
    return AtLookups(keys=keys, outputs=outputs, initial=initial)
