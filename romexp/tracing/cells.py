"""The cells of a trace: one state restored, everything that follows from it run again, nothing else (DESIGN §1.3).

Restoring token t at layer l changes only tokens from t on, in blocks after l. So a cell runs those tokens through those
blocks, over the corrupted run's keys and values of the tokens before. Tokens left of the subject are not corrupted:
restoring them changes nothing, and their cells are the low score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from romexp.lm.batching import halving
from romexp.lm.forward import KeysAndValues, Row, logits, run, suffix_pass
from romexp.lm.model import LanguageModel
from romexp.lm.patching import Change, overwrite, patch
from romexp.tracing.base_runs import CorruptedRun, module_path
from romexp.tracing.prompt import TracedPrompt

WindowConvention = str
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


@torch.no_grad()
def resume_cells(
    lm: LanguageModel,
    prompts: Sequence[TracedPrompt],
    corrupted: CorruptedRun,
    cells: Sequence[Cell],
    *,
    start: int,
    restored: Callable[[Sequence[Cell]], torch.Tensor] | None,
    patches: Callable[[Sequence[Cell]], dict[str, Change]],
    max_batch_tokens: int,
) -> list[float]:
    """p(answer), averaged over samples, for each cell.

    Args:
        start: first block that runs again.
        restored: clean states that take the first token's place at the input of block `start` (cells × hidden size).
        patches: outputs to overwrite while the blocks run, by module path, for rows cell-major.
    """
    scores: dict[int, float] = {}

    def work(batch: Sequence[int]) -> list[None]:
        chosen = [cells[i] for i in batch]
        values = _run_batch(lm, prompts, corrupted, chosen, start=start, restored=restored, patches=patches)
        scores.update(zip(batch, values, strict=True))
        return []

    # Suffixes of one length share a batch, so that nothing is padded.
    by_suffix: dict[int, list[int]] = {}
    for i, cell in enumerate(cells):
        by_suffix.setdefault(len(prompts[cell.prompt].ids) - cell.token, []).append(i)
    for length, members in by_suffix.items():
        size = max(1, max_batch_tokens // (length * corrupted.samples))
        for first in range(0, len(members), size):
            halving(work, members[first : first + size])
    return [scores[i] for i in range(len(cells))]


def _run_batch(
    lm: LanguageModel,
    prompts: Sequence[TracedPrompt],
    corrupted: CorruptedRun,
    cells: Sequence[Cell],
    *,
    start: int,
    restored: Callable[[Sequence[Cell]], torch.Tensor] | None,
    patches: Callable[[Sequence[Cell]], dict[str, Change]],
) -> list[float]:
    n, device = corrupted.samples, corrupted.inputs.device
    rows = [Row.text(prompts[c.prompt].ids) for c in cells for _ in range(n)]
    tokens = [c.token for c in cells for _ in range(n)]
    source = torch.tensor([c.prompt * n + s for c in cells for s in range(n)], device=device)
    token = torch.tensor(tokens, device=device)
    width = max(len(row) - t for row, t in zip(rows, tokens, strict=True))
    columns = (token[:, None] + torch.arange(width, device=device)).clamp(max=corrupted.inputs.shape[2] - 1)
    hidden = corrupted.inputs[start][source[:, None], columns]
    if restored is not None:
        hidden[:, 0] = restored(cells).repeat_interleave(n, dim=0)
    before = max(tokens)
    prefix = {
        layer: (keys[source, :, :before], values[source, :, :before])
        for layer, (keys, values) in corrupted.cache.items()
        if layer >= start and before > 0
    }
    given = suffix_pass(lm, rows, tokens, prefix_width=before if prefix else 0)
    with patch(lm, patches(cells)):
        final = run(lm, given, start=start, hidden=hidden, cache=KeysAndValues(prefix=prefix))
    return _scores(lm, prompts, final, cells, samples=n)


def _scores(
    lm: LanguageModel, prompts: Sequence[TracedPrompt], final: torch.Tensor, cells: Sequence[Cell], *, samples: int
) -> list[float]:
    last = [len(prompts[c.prompt].ids) - 1 - c.token for c in cells for _ in range(samples)]
    answers = torch.tensor([prompts[c.prompt].answer for c in cells for _ in range(samples)], device=final.device)
    states = final[torch.arange(len(last), device=final.device), last]
    probabilities = logits(lm, states).softmax(dim=-1).gather(1, answers[:, None])[:, 0]
    return probabilities.reshape(len(cells), samples).mean(dim=1).tolist()


def first_column(values: torch.Tensor, *, samples: int) -> Change:
    """Overwrite the restored token, which is column 0 of a suffix, with one value a cell (cells × hidden size)."""
    repeated = values.repeat_interleave(samples, dim=0)
    return overwrite(torch.zeros(len(repeated), dtype=torch.long, device=values.device), repeated)


def window_patches(
    lm: LanguageModel, kind: str, clean: torch.Tensor, cells: Sequence[Cell], layers: range, *, samples: int
) -> dict[str, Change]:
    """Restore the outputs of `layers` at each cell's token to the clean run's (layers × prompts × tokens × d)."""
    prompt = torch.tensor([c.prompt for c in cells], device=clean.device)
    token = torch.tensor([c.token for c in cells], device=clean.device)
    return {
        module_path(lm, kind, layer): first_column(clean[layer][prompt, token], samples=samples) for layer in layers
    }
