"""The cells of a trace: one state restored, everything that follows from it run again, nothing else (DESIGN §1.3).

Restoring token t at layer l changes only tokens from t on, in blocks after l. So a cell runs those tokens through those
blocks, over the corrupted run's keys and values of the tokens before. Tokens left of the subject are not corrupted:
restoring them changes nothing, and their cells are the low score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from romexp.lm.batching import halving
from romexp.lm.forward import KeysAndValues, Row, run, suffix_pass
from romexp.lm.model import LanguageModel
from romexp.lm.patching import Change, overwrite, patch
from romexp.tracing.base_runs import CleanRun, CorruptedRun, Kind, answer_scores, module_path
from romexp.tracing.prompt import TracedPrompt

WindowConvention = Literal["code", "paper"]
"""`code`: l - ⌊w/2⌋ … l + ⌈w/2⌉ - 1 (the published code); `paper`: l - ⌊(w-1)/2⌋ … l + ⌊w/2⌋ (App. B.2)."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Restore token `token` of prompt `prompt` (position in the batch)."""

    prompt: int
    token: int


def window_layers(layer: int, *, width: int, n_layers: int, convention: WindowConvention) -> range:
    """Layers whose modules are restored for the cell of `layer`, clipped to the model (SPEC §2.2)."""
    first = layer - width // 2 if convention == "code" else layer - (width - 1) // 2
    return range(max(0, first), min(n_layers, first + width))


def clean_states(clean: CleanRun, kind: Kind, layer: int, cells: Sequence[Cell]) -> torch.Tensor:
    """The clean run's outputs at the cells' tokens (cells × hidden size)."""
    return clean.outputs[kind][layer][[c.prompt for c in cells], [c.token for c in cells]]


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

    @torch.no_grad()
    def __call__(
        self,
        cells: Sequence[Cell],
        *,
        start: int,
        restored: Callable[[Sequence[Cell]], torch.Tensor] | None = None,
        patches: Callable[[Sequence[Cell]], dict[str, Change]] = lambda cells: {},
    ) -> list[float]:
        """p(answer), averaged over samples, for each cell.

        Args:
            start: first block that runs again.
            restored: states that take the first token's place at the input of block `start` (cells × hidden size).
            patches: outputs to overwrite while the blocks run, by module path, for rows cell-major.
        """
        scores: dict[int, float] = {}

        def work(batch: Sequence[int]) -> list[None]:
            chosen = [cells[i] for i in batch]
            values = self._batch(chosen, start, restored(chosen) if restored else None, patches(chosen))
            scores.update(zip(batch, values, strict=True))
            return []

        # Suffixes of one length share a batch, so that nothing is padded.
        by_suffix: dict[int, list[int]] = {}
        for i, cell in enumerate(cells):
            by_suffix.setdefault(len(self.prompts[cell.prompt].ids) - cell.token, []).append(i)
        for length, members in by_suffix.items():
            size = max(1, self.max_batch_tokens // (length * self.corrupted.samples))
            for first in range(0, len(members), size):
                halving(work, members[first : first + size])
        return [scores[i] for i in range(len(cells))]

    def _batch(
        self, cells: Sequence[Cell], start: int, restored: torch.Tensor | None, patches: dict[str, Change]
    ) -> list[float]:
        """Cells whose suffixes are equally long."""
        n, device = self.corrupted.samples, self.corrupted.inputs.device
        chosen = [self.prompts[c.prompt] for c in cells]
        rows = [Row.text(p.ids) for p in chosen for _ in range(n)]
        tokens = [c.token for c in cells for _ in range(n)]
        source = torch.tensor([c.prompt * n + s for c in cells for s in range(n)], device=device)
        width = len(rows[0]) - tokens[0]
        columns = torch.tensor(tokens, device=device)[:, None] + torch.arange(width, device=device)
        hidden = self.corrupted.inputs[start][source[:, None], columns]
        if restored is not None:
            hidden[:, 0] = restored.repeat_interleave(n, dim=0)
        before = max(tokens)
        prefix = {
            layer: (keys[source, :, :before], values[source, :, :before])
            for layer, (keys, values) in self.corrupted.cache.items()
            if layer >= start and before > 0
        }
        given = suffix_pass(self.lm, rows, tokens, prefix_width=before if prefix else 0)
        with patch(self.lm, patches):
            final = run(self.lm, given, start=start, hidden=hidden, cache=KeysAndValues(prefix=prefix))
        return answer_scores(self.lm, final, chosen, columns=[width - 1] * len(cells), samples=n).tolist()


def window_patches(
    lm: LanguageModel, clean: CleanRun, kind: Kind, cells: Sequence[Cell], layers: range, *, samples: int
) -> dict[str, Change]:
    """Restore the outputs of `layers` at each cell's token, which is column 0 of its suffix, to the clean run's."""
    patches = {}
    for layer in layers:
        values = clean_states(clean, kind, layer, cells).repeat_interleave(samples, dim=0)
        first = torch.zeros(len(values), dtype=torch.long, device=values.device)
        patches[module_path(lm, kind, layer)] = overwrite(first, values)
    return patches
