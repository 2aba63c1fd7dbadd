"""The cells of a trace: one state restored, everything that follows from it run again, nothing else
(docs/method.md §9.3).

Restoring token t at layer l changes only tokens from t on, in blocks after l. So a cell runs those tokens through those
blocks, over the corrupted run's keys and values of the tokens before. Where a module inside block l is restored, only
token t changes in that block. After the last block only the last token is read: what is restored there at another
token is read by nobody. Tokens left of the subject are not corrupted: restoring them changes nothing. The cells of both
are the low score.
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
from romexp.tracing.base_runs import CleanRun, CorruptedRun, Kind, answer_scores, module_path
from romexp.tracing.prompt import TracedPrompt

WindowConvention = Literal["code", "paper"]
"""`code`: l - ⌊w/2⌋ … l + ⌈w/2⌉ - 1 (the published code); `paper`: l - ⌊(w-1)/2⌋ … l + ⌊w/2⌋ (App. B.2)."""

MERGED_SHARE = 8
"""Cells with different numbers of tokens share a batch, padded, up to this fraction (1/8) of its token budget."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Restore token `token` of prompt `prompt` (position in the batch)."""

    prompt: int
    token: int


Values = Callable[[Sequence[Cell]], torch.Tensor]
"""What takes the place of the cells' own states, row by row: (cells·samples × hidden size), cell-major."""


def window_layers(layer: int, *, width: int, n_layers: int, convention: WindowConvention) -> range:
    """Layers whose modules are restored for the cell of `layer`, clipped to the model (docs/method.md §2.2)."""
    first = layer - width // 2 if convention == "code" else layer - (width - 1) // 2
    return range(max(0, first), min(n_layers, first + width))


def clean_values(clean: CleanRun, kind: Kind, layer: int, *, samples: int) -> Values:
    """The clean run's outputs at the cells' tokens, the same for every sample."""
    outputs = clean.outputs[kind][layer]

    def values(cells: Sequence[Cell]) -> torch.Tensor:
        return outputs[[c.prompt for c in cells], [c.token for c in cells]].repeat_interleave(samples, dim=0)

    return values


@dataclass(frozen=True, kw_only=True, eq=False)
class Resumption:
    """Runs cells on from a corrupted run.

    Attributes:
        prompts: the prompts of that run.
        max_batch_tokens: tokens of one forward pass; halved where memory runs out.
    """

    lm: LanguageModel
    prompts: Sequence[TracedPrompt]
    corrupted: CorruptedRun
    max_batch_tokens: int

    def __call__(
        self,
        cells: Sequence[Cell],
        *,
        start: int,
        restored: Values | None = None,
        forced: Mapping[tuple[Kind, int], Values] | None = None,
    ) -> list[float]:
        """p(answer), averaged over samples, for each cell.

        Args:
            start: first block that runs again.
            restored: states at the input of block `start`. Without them, block `start` changes at the token alone.
            forced: outputs at the token to overwrite while the blocks run, by kind and layer.
        """

        def work(batch: Sequence[Cell]) -> list[float]:
            return self._batch(batch, start, restored, forced or {})

        scores = run_groups(work, cells, self._groups(cells, resumed=start if restored else start + 1))
        low = self.corrupted.scores.tolist()
        return [scores.get(i, low[cell.prompt]) for i, cell in enumerate(cells)]

    def _length(self, cell: Cell) -> int:
        """Tokens from the restored one to the last."""
        return len(self.prompts[cell.prompt].ids) - cell.token

    def _groups(self, cells: Sequence[Cell], *, resumed: int) -> list[list[int]]:
        """Batches of cells that need a pass. Lengths are mixed in small batches only; a length of 1 stays by itself."""
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
                and (len(groups[-1]) + 1) * length * self.corrupted.samples <= budget
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
        lm, rows, inputs = self.lm, self._rows(cells), self.corrupted.inputs
        # After the last block nobody reads another token than the last.
        layers = range(lm.n_layers if rows.width == 1 else lm.n_layers - 1)
        with patch(lm, {module_path(lm, *at): _at_start(v(cells)) for at, v in forced.items() if at[1] in layers}):
            if restored is not None:
                state = restored(cells)
            else:
                alone = rows.first_only()
                hidden = alone.states(inputs[start])
                state = run_suffixes(lm, alone, start=start, stop=start + 1, hidden=hidden)[:, 0]
                start += 1
            hidden = rows.states(inputs[start])
            hidden[:, 0] = state
            final = last_states(lm, rows, start=start, hidden=hidden)
        chosen = [self.prompts[cell.prompt] for cell in cells]
        return answer_scores(lm, final, chosen, samples=self.corrupted.samples).tolist()

    def _rows(self, cells: Sequence[Cell]) -> Suffixes:
        """The cells' suffixes in the corrupted run, `samples` rows a cell."""
        n, device = self.corrupted.samples, self.corrupted.inputs.device
        numbers = [(c.prompt * n, c.token, self._length(c)) for c in cells]
        first, starts, lengths = torch.tensor(numbers, device=device).repeat_interleave(n, dim=0).T
        return Suffixes(
            cache=self.corrupted.cache,
            source=first + torch.arange(n, device=device).repeat(len(cells)),
            starts=starts,
            lengths=lengths,
            width=max(length for _, _, length in numbers),
            before=max(token for _, token, _ in numbers),
        )


def _at_start(values: torch.Tensor) -> Change:
    """Overwrite column 0, where every suffix has its restored token."""

    def change(output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[:, 0] = values.to(output)
        return changed

    return change
