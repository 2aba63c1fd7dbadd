"""The grid of one kind of state: the metric of every cell, [prompts][tokens][layers] (docs/method.md §2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from romexp.tracing.base_runs import CleanRun, Copies, Kind
from romexp.tracing.cells import Cell, Replacement, Resumption, Values, values_of
from romexp.tracing.prompt import TracedPrompt

TokenRange = Literal["all", "subject_last"]
Grid = list[list[float | None]]
"""[tokens][layers]; None for cells that are not traced."""


def grid_tokens(prompt: TracedPrompt, token_range: TokenRange) -> range:
    """The tokens of which a grid has cells."""
    end = prompt.subject_range[1]
    return range(len(prompt.ids)) if token_range == "all" else range(end - 1, end)


def changed_cells(prompts: Sequence[TracedPrompt], token_range: TokenRange) -> list[Cell]:
    """The tokens whose states differ between clean and corrupted run: those from the subject on."""
    return [
        Cell(prompt=i, token=token)
        for i, prompt in enumerate(prompts)
        for token in grid_tokens(prompt, token_range)
        if token >= prompt.subject_range[0]
    ]


def empty_grids(
    prompts: Sequence[TracedPrompt], base: Sequence[float], *, token_range: TokenRange, n_layers: int
) -> list[Grid]:
    """Grids in which only the tokens before the subject have values: that of the base run, since replacing their states
    changes nothing.
    """
    return [
        [
            [score if t in grid_tokens(p, token_range) and t < p.subject_range[0] else None] * n_layers
            for t in range(len(p.ids))
        ]
        for p, score in zip(prompts, base, strict=True)
    ]


def exact_grids(
    resume: Resumption,
    source: CleanRun | Copies,
    kind: Kind,
    *,
    token_range: TokenRange,
    layers_of: Callable[[int], tuple[int, ...]],
) -> list[Grid]:
    """The grids of one kind, each cell computed.

    Args:
        source: the run whose states replace those of the base run.
        layers_of: the layers that are replaced together in the cell of a layer.
    """
    n_layers = resume.lm.n_layers
    grids = empty_grids(resume.prompts, resume.base.scores.tolist(), token_range=token_range, n_layers=n_layers)
    cells = changed_cells(resume.prompts, token_range)
    # In a shallow model the windows of several cells may be cut off to the same layers.
    windows = list(dict.fromkeys(layers_of(layer) for layer in range(n_layers)))
    scores = resume([replacement(resume, source, cells, kind, layers) for layers in windows])
    of_window = dict(zip(windows, scores, strict=True))
    for layer in range(n_layers):
        fill(grids, cells, layer, of_window[layers_of(layer)])
    return grids


def replacement(
    resume: Resumption, source: CleanRun | Copies, cells: Sequence[Cell], kind: Kind, layers: Sequence[int]
) -> Replacement:
    """In some cells, the kind's outputs in these layers are replaced."""
    values = {layer: values_of(source, kind, layer, samples=resume.base.samples) for layer in layers}
    if kind == "hidden":
        (layer,) = layers
        return Replacement(cells=cells, start=layer + 1, restored=values[layer])
    forced: dict[tuple[Kind, int], Values] = {(kind, layer): value for layer, value in values.items()}
    return Replacement(cells=cells, start=layers[0], forced=forced)


def fill(grids: Sequence[Grid], cells: Iterable[Cell], layer: int, scores: Iterable[float]) -> None:
    """Write the scores of cells of one layer into the grids."""
    for cell, score in zip(cells, scores, strict=True):
        grids[cell.prompt][cell.token][layer] = score
