"""Traces a batch of prompts: the runs that all cells need, then the grids by the method that is asked for
(docs/method.md §2.1, §2.2, §2.8, §2.9).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from romexp.lm.hooks import Change
from romexp.lm.model import LanguageModel
from romexp.tracing.attribution import (
    Slopes,
    WithOutputs,
    estimated_effects,
    estimated_grids,
    grad_drop_sizes,
    slopes,
)
from romexp.tracing.base_runs import CleanRun, Copies, Kind, clean_run, corrupted_run
from romexp.tracing.cells import Resumption, window_layers
from romexp.tracing.corruption import corrupt, corrupted_range, on_the_way, replace_subjects, unchanged
from romexp.tracing.grids import Grid, exact_grids
from romexp.tracing.metrics import Metric, make_metric
from romexp.tracing.noise import Noise
from romexp.tracing.prompt import TracedPrompt
from romexp.tracing.screening import Place, compute_exactly, largest
from romexp.tracing.severed import SEVERED, severed_curves

if TYPE_CHECKING:
    from romexp.tracing.tracer import Tracer

CellPlace = tuple[int, int]
"""Token and layer."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The trace of one prompt. Each score is the metric, averaged over samples; it is not a difference.

    Attributes:
        high_score: the score of the clean run.
        low_score: the score of the corrupted run.
        grids: scores by kind as [tokens][layers]; None for cells outside `token_range`.
        severed: scores by severed kind (`mlp`, `attn`) as [layers] (docs/method.md §2.5).
        exact_cells: by kind, the cells that screening computed exactly; empty for other methods.
    """

    prompt: TracedPrompt
    high_score: float
    low_score: float
    grids: dict[str, Grid] = field(default_factory=dict)
    severed: dict[str, list[float]] = field(default_factory=dict)
    exact_cells: dict[str, list[CellPlace]] = field(default_factory=dict)


def trace_batch(
    tracer: Tracer,
    lm: LanguageModel,
    prompts: Sequence[TracedPrompt],
    *,
    noise: Noise | None,
    streams: Sequence[np.random.RandomState],
) -> list[Trace]:
    """The traces of prompts that share their passes.

    Args:
        noise: None where the tracer draws none.
        streams: the random generator of each prompt.
    """
    kept: list[Kind] = list(dict.fromkeys([*tracer.kinds, *(["hidden"] if tracer.traces_severed else [])]))  # type: ignore[list-item]
    clean = clean_run(lm, prompts, kept if tracer.restores or tracer.method != "exact" else ())
    batch = _Batch(
        tracer=tracer,
        lm=lm,
        prompts=prompts,
        noise=noise,
        streams=streams,
        clean=clean,
        metric=make_metric(lm, tracer.metric, prompts, clean.last),
    )
    return batch.exact() if tracer.method == "exact" else batch.estimated()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Batch:
    """A batch of prompts after its clean run, with what is needed to corrupt it and to read it."""

    tracer: Tracer
    lm: LanguageModel
    prompts: Sequence[TracedPrompt]
    noise: Noise | None
    streams: Sequence[np.random.RandomState]
    clean: CleanRun
    metric: Metric

    def exact(self) -> list[Trace]:
        """Each cell is computed."""
        tracer, draws = self.tracer, self._draws()
        change = self._corruption(draws, replace=tracer.replace)
        kept = [*(SEVERED if tracer.traces_severed else ()), *(() if tracer.restores else tracer.kinds)]
        corrupted = self._copies(change, kinds=kept)
        base, source = (corrupted, self.clean) if tracer.restores else (self._copies(unchanged), corrupted)
        resume = self._resumption(base)
        grids = {
            kind: exact_grids(resume, source, kind, token_range=tracer.token_range, layers_of=self._layers_of(kind))
            for kind in tracer.kinds
        }
        severed: Mapping[str, list[list[float]]] = {}
        if tracer.traces_severed:
            again = self._corruption(self._draws(), replace=tracer.replace) if tracer.severed_second_draw else None
            severed = severed_curves(resume, self.clean, change=again)
        return self._traces(self._low(draws, corrupted.scores), grids, severed=severed)

    def estimated(self) -> list[Trace]:
        """Each cell is estimated from a backward pass; if cells are screened, the best are then computed."""
        tracer, draws = self.tracer, self._draws()
        change = self._corruption(draws, replace=tracer.replace)
        found = self._slopes(draws)
        corrupted: Copies | None = None
        if not tracer.restores or tracer.usual_points > 1 or tracer.method == "screen":
            corrupted = self._copies(change, kinds=tracer.kinds)
        low = found.scores if corrupted is None else corrupted.scores
        base: WithOutputs = corrupted or found
        source: CleanRun | Copies = self.clean
        if not tracer.restores and corrupted is not None:
            base, source = self.clean, corrupted
        scores: list[float] = low.tolist() if tracer.restores else self._high()
        resume = None
        if tracer.method == "screen":
            copies = corrupted if tracer.restores and corrupted is not None else self._copies(unchanged)
            resume = self._resumption(copies)
        grids: dict[Kind, list[Grid]] = {}
        exact: dict[Kind, list[Place]] = {}
        for kind in tracer.kinds:
            effects = estimated_effects(found, base, source, kind)
            grids[kind] = estimated_grids(self.prompts, scores, effects, token_range=tracer.token_range)
            if resume is not None:
                sizes = grad_drop_sizes(found, base, source, kind) if tracer.grad_drop else effects.abs()
                exact[kind] = largest(
                    resume, sizes, share=tracer.share, at_least=tracer.least(kind), token_range=tracer.token_range
                )
        if resume is not None:
            compute_exactly(resume, source, grids, exact)
        return self._traces(self._low(draws, low), grids, exact=exact)

    def _slopes(self, draws: Sequence[torch.Tensor]) -> Slopes:
        """A run with gradients: at the base run, or at points on the way from it to the other run.

        The samples share the points, so that several points cost no more than one where there are as many samples.
        """
        tracer, n, points = self.tracer, self.tracer.copies, self.tracer.usual_points
        rows = 1 if points == 1 and not tracer.restores else max(n, points)
        each = [noise[[row % n for row in range(rows)]] for noise in draws]
        corrupted = self._corruption(each, replace=tracer.replace, samples=rows)
        start, end = (corrupted, unchanged) if tracer.restores else (unchanged, corrupted)
        shares = [(row % points) / points for row in range(rows)]
        change = on_the_way(start, end, shares=shares, prompts=len(self.prompts)) if points > 1 else start
        return slopes(
            self.lm,
            self.prompts,
            change,
            metric=self.metric,
            samples=rows,
            kinds=tracer.kinds,
            grad_drop=tracer.grad_drop,
        )

    def _draws(self) -> list[torch.Tensor]:
        """The next draw of noise of each prompt; none where a subject is replaced."""
        if self.noise is None:
            return []
        size = self.lm.hidden_size
        ranges = [corrupted_range(prompt, self.tracer.extra_token) for prompt in self.prompts]
        return [
            self.noise.draw(stream, (self.tracer.samples, end - begin, size))
            for stream, (begin, end) in zip(self.streams, ranges, strict=True)
        ]

    def _corruption(self, draws: Sequence[torch.Tensor], *, replace: bool, samples: int | None = None) -> Change:
        """The corruption of `samples` rows of each prompt; None has one for each sample."""
        rows = samples or self.tracer.copies
        if self.tracer.corruption == "str":
            return replace_subjects(self.lm, self.prompts, samples=rows)
        return corrupt(self.prompts, draws, samples=rows, extra_token=self.tracer.extra_token, replace=replace)

    def _copies(self, change: Change, *, kinds: Sequence[Kind] = ()) -> Copies:
        n = self.tracer.copies
        return corrupted_run(self.lm, self.prompts, change, metric=self.metric, samples=n, kinds=kinds)

    def _low(self, draws: Sequence[torch.Tensor], scores: torch.Tensor) -> torch.Tensor:
        """The low scores. The authors' code reads them with the noise added, even where it replaces the embeddings."""
        if self.tracer.replace and not self.tracer.replace_in_low_score:
            return self._copies(self._corruption(draws, replace=False)).scores
        return scores

    def _high(self) -> list[float]:
        """The scores of the clean run."""
        if self.tracer.metric == "probability":
            return [prompt.high_score for prompt in self.prompts]
        return self.metric.mean(self.lm, self.clean.last, range(len(self.prompts)), samples=1).tolist()

    def _resumption(self, base: Copies) -> Resumption:
        tokens = self.tracer.batch_tokens(self.lm)
        return Resumption(lm=self.lm, prompts=self.prompts, base=base, metric=self.metric, max_batch_tokens=tokens)

    def _layers_of(self, kind: Kind) -> Callable[[int], tuple[int, ...]]:
        """For the cell of a layer, the layers that are replaced together."""
        if kind == "hidden":
            return lambda layer: (layer,)
        width, n_layers, convention = self.tracer.width, self.lm.n_layers, self.tracer.window_convention
        return lambda layer: tuple(window_layers(layer, width=width, n_layers=n_layers, convention=convention))

    def _traces(
        self,
        low: torch.Tensor,
        grids: Mapping[Kind, Sequence[Grid]],
        *,
        severed: Mapping[str, Sequence[list[float]]] | None = None,
        exact: Mapping[Kind, Sequence[Place]] | None = None,
    ) -> list[Trace]:
        high = self._high()
        return [
            Trace(
                prompt=prompt,
                high_score=high[i],
                low_score=float(low[i]),
                grids={kind: grid[i] for kind, grid in grids.items()},
                severed={kind: curves[i] for kind, curves in (severed or {}).items()},
                exact_cells={
                    kind: [(place.cell.token, place.layer) for place in places if place.cell.prompt == i]
                    for kind, places in (exact or {}).items()
                },
            )
            for i, prompt in enumerate(self.prompts)
        ]
