"""Causal tracing of a batch of prompts: corrupt the subject, restore one state at a time, read the answer (SPEC §2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel
from romexp.tracing.base_runs import CleanRun, CorruptedRun, Kind, clean_run, corrupt, corrupted_range, corrupted_run
from romexp.tracing.cells import Cell, Resumption, WindowConvention, clean_states, window_layers, window_patches
from romexp.tracing.noise import Noise
from romexp.tracing.prompt import TracedPrompt
from romexp.tracing.severed import severed_curves

KINDS: tuple[Kind, ...] = ("hidden", "mlp", "attn")


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The result for one prompt; every score is p(answer) averaged over samples, not a difference.

    Attributes:
        low_score: with nothing restored.
        grids: by kind, [tokens][layers]; None where a cell was not asked for.
        severed: by kind (`mlp`, `attn`), [layers]: the last subject token restored with those modules frozen at it.
    """

    prompt: TracedPrompt
    low_score: float
    grids: dict[str, list[list[float | None]]] = field(default_factory=dict)
    severed: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tracer:
    """What is corrupted and restored. The defaults are the published code (SPEC §2).

    Attributes:
        noise: `s3` is 3σ of the subjects' embeddings; a number is a fixed deviation; `u0.4` uniform, `m` a multivariate
            Gaussian of embeddings, `t5` Student (SPEC §2.3).
        samples: corrupted copies of each prompt.
        kinds: what is restored: `hidden` states, `mlp` and `attn` windows.
        window: layers restored together for `mlp` and `attn`.
        window_convention: `code` is l - ⌊w/2⌋ … l + ⌈w/2⌉ - 1, `paper` is l - ⌊(w-1)/2⌋ … l + ⌊w/2⌋.
        token_range: `all` tokens or `subject_last` alone.
        severed: also trace with MLP and attention at the last subject token frozen (Fig. 3).
        severed_second_draw: the frozen run gets noise of its own, as in the authors' code; off compares like with like.
        replace: noise takes the embeddings' place instead of being added.
        replace_in_low_score: the authors' code leaves `replace` off for the low score; on applies it there too.
        extra_token: tokens after the subject that are corrupted too.
        seed_per_case: a noise stream for each fact; off is the authors' one stream for all.
        max_batch_tokens: tokens in one forward pass; halved where memory runs out.
    """

    noise: str | float = "s3"
    samples: int = 10
    kinds: Sequence[Kind] = KINDS
    window: int = 10
    window_convention: WindowConvention = "code"
    token_range: Literal["all", "subject_last"] = "all"
    severed: bool = True
    severed_second_draw: bool = False
    replace: bool = False
    replace_in_low_score: bool = False
    extra_token: int = 0
    seed_per_case: bool = False
    max_batch_tokens: int = 16384

    def __post_init__(self) -> None:
        if self.samples < 1 or self.window < 1 or self.extra_token < 0 or self.max_batch_tokens < 1:
            raise ConfigError("tracer: samples, window and max_batch_tokens must be at least 1, extra_token at least 0")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ConfigError(f"tracer.kinds: {unknown[0]!r} is none of {', '.join(KINDS)}")
        if self.window_convention not in ("code", "paper") or self.token_range not in ("all", "subject_last"):
            raise ConfigError("tracer: window_convention is code or paper, token_range is all or subject_last")

    def __call__(
        self, lm: LanguageModel, prompts: Sequence[TracedPrompt], *, noise: Noise, seeds: Sequence[int] | None = None
    ) -> list[Trace]:
        """Trace prompts; the result of each does not depend on the others.

        Args:
            noise: what `self.noise` names, made once for the data set by `make_noise`.
            seeds: one a prompt, used if `seed_per_case`.
        """
        out: list[Trace] = []
        longest = max((len(p.ids) for p in prompts), default=1)
        step = max(1, self.max_batch_tokens // (longest * self.samples))
        for first in range(0, len(prompts), step):
            chosen = prompts[first : first + step]
            out += self._trace(lm, chosen, noise, seeds[first : first + step] if seeds else [1] * len(chosen))
        return out

    def _trace(
        self, lm: LanguageModel, prompts: Sequence[TracedPrompt], noise: Noise, seeds: Sequence[int]
    ) -> list[Trace]:
        streams = [np.random.RandomState(seed % 2**32 if self.seed_per_case else 1) for seed in seeds]
        draws = [self._draw(lm, prompt, noise, stream) for prompt, stream in zip(prompts, streams, strict=True)]
        kept: list[Kind] = [*self.kinds]
        if self.severed and "hidden" not in kept:
            kept.append("hidden")
        clean = clean_run(lm, prompts, kept)
        corrupted = self._corrupted(lm, prompts, draws, kinds=("mlp", "attn") if self.severed else ())
        low = corrupted.scores
        if self.replace and not self.replace_in_low_score:
            change = corrupt(prompts, draws, samples=self.samples, extra_token=self.extra_token, replace=False)
            low = corrupted_run(lm, prompts, change, samples=self.samples).scores
        resume = Resumption(lm=lm, prompts=prompts, corrupted=corrupted, max_batch_tokens=self.max_batch_tokens)
        grids = {kind: self._grid(resume, clean, prompts, kind) for kind in self.kinds}
        severed: dict[str, list[list[float]]] = {}
        if self.severed:
            second = draws
            if self.severed_second_draw:
                second = [self._draw(lm, p, noise, stream) for p, stream in zip(prompts, streams, strict=True)]
            change = corrupt(prompts, second, samples=self.samples, extra_token=self.extra_token, replace=self.replace)
            severed = severed_curves(
                lm,
                prompts,
                clean,
                corrupted,
                change=change if self.severed_second_draw else None,
                max_batch_tokens=self.max_batch_tokens,
            )
        return [
            Trace(
                prompt=prompt,
                low_score=float(low[i]),
                grids={kind: grid[i] for kind, grid in grids.items()},
                severed={kind: curves[i] for kind, curves in severed.items()},
            )
            for i, prompt in enumerate(prompts)
        ]

    def _draw(
        self, lm: LanguageModel, prompt: TracedPrompt, noise: Noise, stream: np.random.RandomState
    ) -> torch.Tensor:
        begin, end = corrupted_range(prompt, self.extra_token)
        return noise.draw(stream, (self.samples, end - begin, lm.hidden_size))

    def _corrupted(
        self,
        lm: LanguageModel,
        prompts: Sequence[TracedPrompt],
        draws: Sequence[torch.Tensor],
        *,
        kinds: Sequence[Kind],
    ) -> CorruptedRun:
        change = corrupt(prompts, draws, samples=self.samples, extra_token=self.extra_token, replace=self.replace)
        return corrupted_run(lm, prompts, change, samples=self.samples, kinds=kinds)

    def _grid(
        self, resume: Resumption, clean: CleanRun, prompts: Sequence[TracedPrompt], kind: Kind
    ) -> list[list[list[float | None]]]:
        """[prompts][tokens][layers] of one kind."""
        n_layers = resume.lm.n_layers
        grids: list[list[list[float | None]]] = [[[None] * n_layers for _ in p.ids] for p in prompts]
        cells = []
        for i, p in enumerate(prompts):
            begin, end = p.subject_range
            tokens = range(len(p.ids)) if self.token_range == "all" else range(end - 1, end)
            cells += [Cell(prompt=i, token=t) for t in tokens if t >= begin]
            for t in (t for t in tokens if t < begin):
                # Left of the subject nothing is corrupted, so nothing can be restored: what the run gives anyway.
                grids[i][t] = [float(resume.corrupted.scores[i])] * n_layers
        for layer in range(n_layers):
            for cell, score in zip(cells, self._layer(resume, clean, cells, kind, layer), strict=True):
                grids[cell.prompt][cell.token][layer] = score
        return grids

    def _layer(self, resume: Resumption, clean: CleanRun, cells: Sequence[Cell], kind: Kind, layer: int) -> list[float]:
        """Scores of all cells of one layer."""
        lm = resume.lm
        if kind == "hidden":
            return resume(cells, start=layer + 1, restored=lambda batch: clean_states(clean, "hidden", layer, batch))
        layers = window_layers(layer, width=self.window, n_layers=lm.n_layers, convention=self.window_convention)
        return resume(
            cells,
            start=layers[0],
            patches=lambda batch: window_patches(lm, clean, kind, batch, layers, samples=self.samples),
        )
