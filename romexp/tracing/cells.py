"""The cells of a trace: replace one state in a base run and compute only what follows from it (docs/method.md §2.2,
§9.3). The base is the corrupted run, whose states are restored; or the clean run, whose states are corrupted (§2.8).

Replacing a state of token t at layer l changes only the tokens from t on, in the blocks after l. So a cell runs these
tokens through these blocks, and attends to the keys and values that the base run has for the tokens before t. If
an MLP or attention module of block l is replaced, block l runs again too, for token t alone.

Two kinds of cell are not run, since they equal the base run's score: tokens before the subject, which are not
corrupted, and tokens other than the last at the last block, which do not affect the prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from romexp.lm.batching import run_groups
from romexp.lm.hooks import Change, patch
from romexp.lm.model import LanguageModel
from romexp.lm.suffix import Suffixes, last_states, run_suffixes
from romexp.tracing.base_runs import CleanRun, Copies, Kind, module_path
from romexp.tracing.metrics import Metric
from romexp.tracing.prompt import TracedPrompt

WindowConvention = Literal["code", "paper"]
"""`code`: l - ⌊w/2⌋ … l + ⌈w/2⌉ - 1 (the published code); `paper`: l - ⌊(w-1)/2⌋ … l + ⌊w/2⌋ (App. B.2)."""

MERGED_SHARE = 8
"""A batch that mixes cells of different lengths, and so needs padding, may use 1/8 of the token budget."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One replaced token: token `token` of the prompt at position `prompt` in the batch."""

    prompt: int
    token: int


Values = Callable[[Sequence[Cell]], torch.Tensor]
"""Gives the states that replace those of some cells (cells·samples × hidden size); a cell's samples are adjacent."""


def window_layers(layer: int, *, width: int, n_layers: int, convention: WindowConvention) -> range:
    """The layers whose modules are restored for the cell of `layer`: a window around it, cut off at the ends of the
    model (docs/method.md §2.2).
    """
    first = layer - width // 2 if convention == "code" else layer - (width - 1) // 2
    return range(max(0, first), min(n_layers, first + width))


def values_of(source: CleanRun | Copies, kind: Kind, layer: int, *, samples: int) -> Values:
    """The outputs of a run at the cells' tokens. Those of the clean run are the same for all samples."""
    outputs = source.outputs[kind][layer]

    def values(cells: Sequence[Cell]) -> torch.Tensor:
        if isinstance(source, CleanRun):
            return outputs[[c.prompt for c in cells], [c.token for c in cells]].repeat_interleave(samples, dim=0)
        rows = [c.prompt * samples + sample for c in cells for sample in range(samples)]
        return outputs[rows, [c.token for c in cells for _ in range(samples)]]

    return values


@dataclass(frozen=True, kw_only=True, eq=False)
class Resumption:
    """Computes the scores of cells by continuing a base run.

    Attributes:
        prompts: the prompts of the base run.
        metric: what is read.
        max_batch_tokens: tokens of one forward pass, padding included. A batch is halved if memory runs out.
    """

    lm: LanguageModel
    prompts: Sequence[TracedPrompt]
    base: Copies
    metric: Metric
    max_batch_tokens: int

    def __call__(
        self,
        cells: Sequence[Cell],
        *,
        start: int,
        restored: Values | None = None,
        forced: Mapping[tuple[Kind, int], Values] | None = None,
    ) -> list[float]:
        """The metric of each cell, averaged over samples.

        Args:
            start: the first block that runs again.
            restored: states that replace the input of block `start` at the cells' tokens. If None, block `start` runs
                for the cells' tokens alone, and all later tokens run from the block after it.
            forced: states that replace outputs at the cells' tokens while the blocks run, by kind and layer.
        """

        def work(batch: Sequence[Cell]) -> list[float]:
            return self._batch(batch, start, restored, forced or {})

        scores = run_groups(work, cells, self._groups(cells, resumed=start if restored else start + 1))
        base = self.base.scores.tolist()
        return [scores.get(i, base[cell.prompt]) for i, cell in enumerate(cells)]

    def _length(self, cell: Cell) -> int:
        """Number of tokens from the replaced one to the last."""
        return len(self.prompts[cell.prompt].ids) - cell.token

    def _groups(self, cells: Sequence[Cell], *, resumed: int) -> list[list[int]]:
        """Group the cells that must be run into batches, as lists of indices.

        Only small batches mix different lengths, and cells of length 1 are never mixed with others.

        Args:
            resumed: the block from which all tokens of a cell run.
        """
        groups: list[list[int]] = []
        for i in sorted(range(len(cells)), key=lambda i: (self._length(cells[i]), cells[i].token)):
            length = self._length(cells[i])
            if length > 1 and resumed == self.lm.n_layers:
                break
            shortest = self._length(cells[groups[-1][0]]) if groups else 0
            budget = self.max_batch_tokens if shortest == length else self.max_batch_tokens // MERGED_SHARE
            if (
                groups
                and (shortest == length or shortest > 1)
                and (len(groups[-1]) + 1) * length * self.base.samples <= budget
            ):
                groups[-1].append(i)
            else:
                groups.append([i])
        return groups

    @torch.no_grad()
    def _batch(
        self,
        cells: Sequence[Cell],
        start: int,
        restored: Values | None,
        forced: Mapping[tuple[Kind, int], Values],
    ) -> list[float]:
        lm, rows, inputs = self.lm, self._rows(cells), self.base.inputs
        # The last block computes only the last token of each row. So its outputs may be replaced only if that is the
        # restored token, that is if each row has one token.
        layers = range(lm.n_layers if rows.width == 1 else lm.n_layers - 1)
        changes = {
            module_path(lm, kind, layer): _overwrite_first_column(values(cells))
            for (kind, layer), values in forced.items()
            if layer in layers
        }
        with patch(lm, changes):
            if restored is not None:
                state = restored(cells)
            else:
                restored_tokens = rows.first_only()
                hidden = restored_tokens.states(inputs[start])
                state = run_suffixes(lm, restored_tokens, start=start, stop=start + 1, hidden=hidden)[:, 0]
                start += 1
            hidden = rows.states(inputs[start])
            hidden[:, 0] = state
            final = last_states(lm, rows, start=start, hidden=hidden)
        return self.metric.mean(lm, final, [c.prompt for c in cells], samples=self.base.samples).tolist()

    def _rows(self, cells: Sequence[Cell]) -> Suffixes:
        """The cells' suffixes in the base run, with `samples` rows per cell."""
        n, device = self.base.samples, self.base.inputs.device
        numbers = [(c.prompt * n, c.token, self._length(c)) for c in cells]
        first, starts, lengths = torch.tensor(numbers, device=device).repeat_interleave(n, dim=0).T
        return Suffixes(
            cache=self.base.cache,
            source=first + torch.arange(n, device=device).repeat(len(cells)),
            starts=starts,
            lengths=lengths,
            width=max(length for _, _, length in numbers),
            before=max(token for _, token, _ in numbers),
        )


def _overwrite_first_column(values: torch.Tensor) -> Change:
    """A change that replaces column 0, which holds the restored token of each suffix."""

    def change(output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[:, 0] = values.to(output)
        return changed

    return change
