"""Reads keys and states of edit requests from below, while layers are edited (docs/method.md §12.2, §12.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from romexp.editors.values.prefix import Prefix, shared_start
from romexp.editors.values.texts import EditText
from romexp.lm.apply_delta import overlay
from romexp.lm.batching import batched
from romexp.lm.forward import KeysAndValues, Row, make_inputs, run_blocks, suffix_inputs
from romexp.lm.hooks import capture
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta

MAX_TOKENS = 8192
"""Tokens of one forward pass, padding included. It affects results only by rounding."""
STORED_BYTES = 2 * 2**30
"""Memory for what texts bring from one reading to the next. Texts beyond it run from the first block on each time."""


@dataclass(frozen=True, kw_only=True)
class RequestTexts:
    """The texts in which keys and states of requests are read.

    Attributes:
        texts: the rewriting texts of each request, one per template in order, the bare prompt first.
        weights: the weight of each template in a key; they sum to 1.
    """

    texts: Sequence[Sequence[EditText]]
    weights: Sequence[float]


def template_weights(groups: Sequence[Sequence[str]]) -> tuple[float, ...]:
    """The weight of each template, so that a weighted mean is the mean of the groups' means."""
    return tuple(1 / len(groups) / len(group) for group in groups for _ in group)


class UpwardReader:
    """Reads what modules get or give at the lookup tokens of requests, at one layer after another, from below.

    A reading of keys at layer l keeps what block l got. The next reading goes on from there, so the model may change
    between readings only in layer l and above. If all requests run through the same model, the tokens with which all
    texts of a template begin (its context) run once for all.

    Args:
        requests: the texts.
        one_model: whether all requests run through the same model. Else each reading takes an edit for each request.
        stored_bytes: the memory for what is kept.
    """

    def __init__(self, requests: RequestTexts, *, one_model: bool, stored_bytes: int = STORED_BYTES) -> None:
        self._weights = requests.weights
        by_template = [[_until_lookup(text) for text in texts] for texts in zip(*requests.texts, strict=True)]
        self._shared = [
            shared_start([row.part(0, len(row) - 1) for row in rows]) if one_model else 0 for rows in by_template
        ]
        self._rows = [row for own in zip(*by_template, strict=True) for row in own]  # request by request
        self._room = stored_bytes
        self._stored: dict[int, tuple[int, torch.Tensor]] = {}

    def keys(
        self, lm: LanguageModel, layers: Sequence[int], *, deltas: Sequence[WeightDelta] | None = None
    ) -> dict[int, torch.Tensor]:
        """The keys by layer (requests × D), float32: weighted means over the templates.

        Args:
            layers: layers whose keys are read in one pass, above those of earlier readings.
            deltas: the edit of each request's own model, added to the weights of `lm`; None if it has none.
        """
        names, top = [lm.architecture.mlp_out_name(layer) for layer in layers], max(layers)
        block = lm.architecture.block_name(top)
        prefix = self._prefix(lm, top + 1)

        def read(batch: list[int]) -> list[torch.Tensor]:
            with capture(lm, [*names, block], at="input") as seen:
                self._run(lm, batch, prefix, stop=top + 1, deltas=deltas)
            self._store(batch, top, seen[block])
            return list(torch.stack([self._last(seen[name], batch) for name in names], dim=1))

        by_text = torch.stack(self._batched(read, range(len(self._rows)))).unflatten(0, (-1, len(self._weights)))
        found = torch.einsum("rtld,t->rld", by_text, by_text.new_tensor(self._weights))
        return {layer: found[:, i] for i, layer in enumerate(layers)}

    def states(
        self, lm: LanguageModel, module: str, *, layer: int, deltas: Sequence[WeightDelta] | None = None
    ) -> torch.Tensor:
        """The outputs of a module in the bare prompts (requests × d), float32.

        Args:
            module: path of a module in block `layer`, which is not below the layers that were read.
            deltas: as for `keys`.
        """
        prefix = self._prefix(lm, layer + 1)

        def read(batch: list[int]) -> list[torch.Tensor]:
            with capture(lm, [module]) as seen:
                self._run(lm, batch, prefix, stop=layer + 1, deltas=deltas)
            return list(self._last(seen[module], batch))

        return torch.stack(self._batched(read, range(0, len(self._rows), len(self._weights))))

    def _run(
        self,
        lm: LanguageModel,
        batch: Sequence[int],
        prefix: Prefix,
        *,
        stop: int,
        deltas: Sequence[WeightDelta] | None,
    ) -> None:
        """Run some texts up to block `stop` - 1, from where the reading before has left them."""
        templates = [item % len(self._shared) for item in batch]
        starts = [self._shared[template] for template in templates]
        inputs = suffix_inputs(lm, [self._rows[item] for item in batch], starts, prefix_width=max(starts))
        cache = None
        if max(starts):
            source = torch.tensor(templates, device=lm.device)
            cache = KeysAndValues(prefix=prefix, source=source, width=max(starts))
        start, hidden = 0, None
        if stored := [self._stored[item] for item in batch if item in self._stored]:
            start, hidden = stored[0][0], pad_sequence([states for _, states in stored], batch_first=True).to(lm.device)
        own = None if deltas is None else [deltas[item // len(self._shared)] for item in batch]
        with nullcontext() if own is None else overlay(lm, own):
            run_blocks(lm, inputs, start=start, stop=stop, hidden=hidden, cache=cache)

    @torch.no_grad()
    def _prefix(self, lm: LanguageModel, stop: int) -> Prefix:
        """Keys and values of each template's shared tokens, by block up to `stop` - 1."""
        if not any(self._shared):
            return {}
        first = self._rows[: len(self._shared)]  # the texts of one request
        rows = [row.part(0, end) for row, end in zip(first, self._shared, strict=True)]
        recorder = KeysAndValues(record=True)
        run_blocks(lm, make_inputs(lm, rows), stop=stop, cache=recorder)
        return recorder.stored

    @torch.no_grad()
    def _batched(self, read: Callable[[list[int]], list[torch.Tensor]], items: Sequence[int]) -> list[torch.Tensor]:
        """Call `read` on batches of texts that all are stored or all are not, and return its results in order."""
        found: dict[int, torch.Tensor] = {}
        stored = [item for item in items if item in self._stored]
        others = [item for item in items if item not in self._stored]
        for some in (stored, others):
            results = batched(read, some, [self._length(item) for item in some], max_tokens=MAX_TOKENS)
            found.update(zip(some, results, strict=True))
        return [found[item] for item in sorted(found)]

    def _store(self, batch: Sequence[int], block: int, entering: torch.Tensor) -> None:
        """Keep what a block got for the texts of a batch (texts × tokens × hidden size), as far as there is room."""
        for item, states in zip(batch, entering.cpu(), strict=True):
            own = states[: self._length(item)].clone()  # a view would hold the whole batch
            if item not in self._stored:
                if own.nbytes > self._room:
                    continue
                self._room -= own.nbytes
            self._stored[item] = (block, own)

    def _length(self, item: int) -> int:
        """Number of tokens that a text runs by itself."""
        return len(self._rows[item]) - self._shared[item % len(self._shared)]

    def _last(self, states: torch.Tensor, batch: Sequence[int]) -> torch.Tensor:
        """The last token of each text of a batch (texts × features), float32."""
        last = torch.tensor([self._length(item) - 1 for item in batch], device=states.device)
        return states[torch.arange(len(batch), device=states.device), last].float()


def _until_lookup(text: EditText) -> Row:
    """The text up to the lookup token: what follows it cannot change what is read there."""
    return text.row.part(0, text.lookup + 1)
