"""Screening: attribution patching says which cells matter, and these are computed exactly (docs/method.md §2.9)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from romexp.tracing.base_runs import CleanRun, Copies, Kind
from romexp.tracing.cells import Cell, Resumption
from romexp.tracing.grids import Grid, TokenRange, changed_cells, fill, replacement


@dataclass(frozen=True, kw_only=True)
class Place:
    """One cell of the grid of a prompt."""

    cell: Cell
    layer: int


def largest(resume: Resumption, sizes: torch.Tensor, *, share: float, token_range: TokenRange) -> list[Place]:
    """For each prompt the cells with the largest sizes: ⌈share · n⌉ of its n cells whose effect is not 0 anyway.

    Args:
        sizes: (prompts × tokens × layers).
    """
    by_prompt: dict[int, list[tuple[float, Place]]] = {}
    last_layer = resume.lm.n_layers - 1
    for cell in changed_cells(resume.prompts, token_range):
        last = cell.token == len(resume.prompts[cell.prompt].ids) - 1
        for layer, size in enumerate(sizes[cell.prompt, cell.token].tolist()):
            if layer < last_layer or last:  # nothing reads the last block at other tokens
                by_prompt.setdefault(cell.prompt, []).append((size, Place(cell=cell, layer=layer)))
    chosen = []
    for places in by_prompt.values():
        ranked = sorted(places, key=lambda each: -each[0])
        chosen += [place for _, place in ranked[: math.ceil(share * len(places))]]
    return chosen


def compute_exactly(
    resume: Resumption, source: CleanRun | Copies, kind: Kind, grids: Sequence[Grid], places: Sequence[Place]
) -> None:
    """Replace the estimates of these cells in the grids by what they are."""
    layers = sorted({place.layer for place in places})
    cells = [[place.cell for place in places if place.layer == layer] for layer in layers]
    scores = resume([replacement(resume, source, mine, kind, (at,)) for at, mine in zip(layers, cells, strict=True)])
    for layer, mine, found in zip(layers, cells, scores, strict=True):
        fill(grids, mine, layer, found)
