"""Reads keys and states of edit requests on a model that may be edited (docs/method.md §12.2, §12.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from romexp.editors.values.texts import EditText
from romexp.lm.apply_delta import overlay
from romexp.lm.batching import batched
from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.hooks import capture
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta

MAX_TOKENS = 8192
"""Tokens of one forward pass, padding included. It affects results only by rounding."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Reads what modules get or give at the lookup tokens of requests.

    Attributes:
        texts: the rewriting texts of each request, one per template in order, the bare prompt first.
        weights: the weight of each template in a key; they sum to 1.
    """

    texts: Sequence[Sequence[EditText]]
    weights: Sequence[float]

    def keys(
        self, lm: LanguageModel, layers: Sequence[int], *, deltas: Sequence[WeightDelta] | None = None
    ) -> dict[int, torch.Tensor]:
        """The keys by layer (requests × D), float32: weighted means over the templates.

        Args:
            layers: layers whose keys are read in one pass.
            deltas: the edit of each request's own model, added to the weights of `lm`; None if it has none.
        """
        names = [lm.architecture.mlp_out_name(layer) for layer in layers]

        def read(lm: LanguageModel, rows: Sequence[Row]) -> torch.Tensor:
            with capture(lm, names, at="input") as seen:
                run_blocks(lm, make_inputs(lm, rows), stop=max(layers) + 1)
            found = torch.stack([_last(seen[name], rows) for name in names], dim=1)
            weights = found.new_tensor(self.weights)
            return torch.einsum("rtld,t->rld", found.unflatten(0, (-1, len(weights))), weights)

        found = _by_request(lm, read, self.texts, deltas)
        return {layer: found[:, i] for i, layer in enumerate(layers)}

    def states(
        self, lm: LanguageModel, module: str, *, layer: int, deltas: Sequence[WeightDelta] | None = None
    ) -> torch.Tensor:
        """The outputs of a module in the bare prompts (requests × d), float32.

        Args:
            module: path of a module in block `layer`.
            deltas: as for `keys`.
        """

        def read(lm: LanguageModel, rows: Sequence[Row]) -> torch.Tensor:
            with capture(lm, [module]) as seen:
                run_blocks(lm, make_inputs(lm, rows), stop=layer + 1)
            return _last(seen[module], rows)

        return _by_request(lm, read, [texts[:1] for texts in self.texts], deltas)


def template_weights(groups: Sequence[Sequence[str]]) -> tuple[float, ...]:
    """The weight of each template, so that a weighted mean is the mean of the groups' means."""
    return tuple(1 / len(groups) / len(group) for group in groups for _ in group)


@torch.no_grad()
def _by_request(
    lm: LanguageModel,
    read: Callable[[LanguageModel, Sequence[Row]], torch.Tensor],
    texts: Sequence[Sequence[EditText]],
    deltas: Sequence[WeightDelta] | None,
) -> torch.Tensor:
    """Call `read` on batches of requests.

    Args:
        read: takes the rows of some requests, for each request as many as it has texts, cut off after the token at
            which they are read; returns one tensor per request.
    """
    rows = [[_until_lookup(text) for text in own] for own in texts]

    def work(batch: list[int]) -> Sequence[torch.Tensor]:
        own = [row for i in batch for row in rows[i]]
        edited = nullcontext() if deltas is None else overlay(lm, [deltas[i] for i in batch for _ in rows[i]])
        with edited:
            return list(read(lm, own))

    lengths = [len(own) * max(map(len, own)) for own in rows]
    return torch.stack(batched(work, range(len(rows)), lengths, max_tokens=MAX_TOKENS))


def _until_lookup(text: EditText) -> Row:
    """The text up to the lookup token: what follows it cannot change what is read there."""
    end = text.lookup + 1
    return Row(ids=text.row.ids[:end], positions=text.row.positions[:end], segments=text.row.segments[:end])


def _last(states: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Each row's last token (rows × features), float32."""
    last = torch.tensor([len(row) - 1 for row in rows], device=states.device)
    return states[torch.arange(len(rows), device=states.device), last].float()
