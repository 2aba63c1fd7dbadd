"""The cells of a trace: replace one state in a base run and compute only what follows from it (docs/method.md §2.2,
§9.3). The base is the corrupted run, whose states are restored; or the clean run, whose states are corrupted (§2.8).

Replacing a state of token t at layer l changes only the tokens from t on, in the blocks after l. So a cell runs these
tokens through these blocks, and attends to the keys and values that the base run has for the tokens before t. If
an MLP or attention module of block l is replaced, block l runs again too, for token t alone.

Two kinds of cell are not run, since they equal the base run's score: tokens before the subject, which are not
corrupted, and tokens other than the last at the last block, which do not affect the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from romexp.lm.batching import by_length, pass_tokens, run_groups
from romexp.lm.model import LanguageModel
from romexp.lm.suffix import Suffixes
from romexp.tracing.base_runs import CleanRun, Copies, Kind
from romexp.tracing.metrics import Metric
from romexp.tracing.prompt import TracedPrompt
from romexp.tracing.shared_passes import Cell, ReplacedCell, Replacement, Values, replaced_states

__all__ = ["Cell", "Replacement", "Resumption", "Values", "WindowConvention", "values_of", "window_layers"]

WindowConvention = Literal["code", "paper"]
"""`code`: l - ⌊w/2⌋ … l + ⌈w/2⌉ - 1 (the published code); `paper`: l - ⌊(w-1)/2⌋ … l + ⌊w/2⌋ (App. B.2)."""


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

    def __call__(self, replacements: Sequence[Replacement]) -> list[list[float]]:
        """For each replacement the metric of its cells, averaged over samples. Pass all in one call: cells of different
        replacements share passes.
        """
        cells = [ReplacedCell(cell=cell, of=each) for each in replacements for cell in each.cells]
        scores = run_groups(self._batch, cells, self._groups(cells))
        base = self.base.scores.tolist()
        found = iter([scores.get(i, base[each.cell.prompt]) for i, each in enumerate(cells)])
        return [[next(found) for _ in each.cells] for each in replacements]

    def _length(self, cell: Cell) -> int:
        """Number of tokens from the replaced one to the last."""
        return len(self.prompts[cell.prompt].ids) - cell.token

    def _groups(self, cells: Sequence[ReplacedCell]) -> list[list[int]]:
        """Group the cells that must be run into batches, as lists of indices.

        Cells of length 1 are never mixed with others, since their last block runs in another way.
        """
        lengths = [self._length(each.cell) for each in cells]
        order = sorted(range(len(cells)), key=lambda i: (cells[i].of.resumed, cells[i].cell.token))
        one = [i for i in order if lengths[i] == 1]
        longer = [i for i in order if lengths[i] > 1 and cells[i].of.resumed < self.lm.n_layers]
        groups = []
        for places in (one, longer):
            tokens = [lengths[i] * self.base.samples for i in places]
            found = by_length(tokens, max_tokens=self.max_batch_tokens, per_pass=pass_tokens(self.lm.device))
            groups += [[places[k] for k in group] for group in found]
        return groups

    @torch.no_grad()
    def _batch(self, cells: Sequence[ReplacedCell]) -> list[float]:
        """The metric of each cell of one pass."""
        samples = self.base.samples
        order = sorted(range(len(cells)), key=lambda i: cells[i].of.resumed)
        joining = [cells[i] for i in order]
        rows = self._rows([each.cell for each in joining])
        final = replaced_states(self.lm, joining, rows, self.base.inputs, samples=samples)
        scores = self.metric.mean(self.lm, final, [each.cell.prompt for each in joining], samples=samples).tolist()
        found = dict(zip(order, scores, strict=True))
        return [found[i] for i in range(len(cells))]

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
