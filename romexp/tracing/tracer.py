"""Causal tracing of a batch of prompts: corrupt the subject, restore one state at a time, read the answer
(docs/method.md §2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from romexp.errors import ConfigError
from romexp.lm.batching import batched
from romexp.lm.hooks import Change
from romexp.lm.model import LanguageModel
from romexp.tracing.base_runs import CleanRun, Kind, clean_run, corrupt, corrupted_range, corrupted_run
from romexp.tracing.cells import Cell, Resumption, WindowConvention, clean_values, window_layers
from romexp.tracing.noise import Noise
from romexp.tracing.prompt import TracedPrompt
from romexp.tracing.severed import SEVERED, severed_curves

KINDS: tuple[Kind, ...] = ("hidden", "mlp", "attn")

CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS = 2048, 16384
"""Tokens of a pass: on a CPU few enough for its caches, on an accelerator many enough to keep it busy."""


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
    """What is corrupted and restored. The defaults are the published code (docs/method.md §2).

    Attributes:
        noise: `s3` is 3σ of the subjects' embeddings; a number is a fixed deviation; `u0.4` uniform, `m` a multivariate
            Gaussian of embeddings, `t5` Student (docs/method.md §2.3).
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
        max_batch_tokens: tokens in one forward pass; None takes what suits the device. Halved where memory runs out.
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
    max_batch_tokens: int | None = None

    def __post_init__(self) -> None:
        budget = 1 if self.max_batch_tokens is None else self.max_batch_tokens
        if self.samples < 1 or self.window < 1 or self.extra_token < 0 or budget < 1:
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

        def work(batch: Sequence[tuple[TracedPrompt, int]]) -> list[Trace]:
            return self._trace(lm, [prompt for prompt, _ in batch], noise, [seed for _, seed in batch])

        seeded = list(zip(prompts, seeds or [1] * len(prompts), strict=True))
        budget = self.batch_tokens(lm) // self.samples
        return batched(work, seeded, [len(p.ids) for p in prompts], max_tokens=budget)

    def batch_tokens(self, lm: LanguageModel) -> int:
        """`max_batch_tokens`, or what suits the device."""
        if self.max_batch_tokens is not None:
            return self.max_batch_tokens
        return CPU_BATCH_TOKENS if lm.device.type == "cpu" else DEVICE_BATCH_TOKENS

    def _trace(
        self, lm: LanguageModel, prompts: Sequence[TracedPrompt], noise: Noise, seeds: Sequence[int]
    ) -> list[Trace]:
        streams = [np.random.RandomState(seed % 2**32 if self.seed_per_case else 1) for seed in seeds]
        draws = [self._draw(lm, prompt, noise, stream) for prompt, stream in zip(prompts, streams, strict=True)]
        kept: list[Kind] = [*self.kinds]
        if self.severed and "hidden" not in kept:
            kept.append("hidden")
        clean = clean_run(lm, prompts, kept)
        change = self._change(prompts, draws, replace=self.replace)
        corrupted = corrupted_run(lm, prompts, change, samples=self.samples, kinds=SEVERED if self.severed else ())
        low = corrupted.scores
        if self.replace and not self.replace_in_low_score:
            added = self._change(prompts, draws, replace=False)
            low = corrupted_run(lm, prompts, added, samples=self.samples).scores
        resume = Resumption(lm=lm, prompts=prompts, corrupted=corrupted, max_batch_tokens=self.batch_tokens(lm))
        grids = {kind: self._grid(resume, clean, kind) for kind in self.kinds}
        severed: dict[str, list[list[float]]] = {}
        if self.severed:
            again: Change | None = None
            if self.severed_second_draw:
                second = [self._draw(lm, p, noise, stream) for p, stream in zip(prompts, streams, strict=True)]
                again = self._change(prompts, second, replace=self.replace)
            severed = severed_curves(resume, clean, change=again)
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

    def _change(self, prompts: Sequence[TracedPrompt], draws: Sequence[torch.Tensor], *, replace: bool) -> Change:
        return corrupt(prompts, draws, samples=self.samples, extra_token=self.extra_token, replace=replace)

    def _grid(self, resume: Resumption, clean: CleanRun, kind: Kind) -> list[list[list[float | None]]]:
        """[prompts][tokens][layers] of one kind."""
        prompts, n_layers = resume.prompts, resume.lm.n_layers
        grids: list[list[list[float | None]]] = [[[None] * n_layers for _ in p.ids] for p in prompts]
        cells = []
        for i, p in enumerate(prompts):
            begin, end = p.subject_range
            tokens = range(len(p.ids)) if self.token_range == "all" else range(end - 1, end)
            cells += [Cell(prompt=i, token=t) for t in tokens if t >= begin]
            for t in (t for t in tokens if t < begin):
                # Left of the subject nothing is corrupted, so nothing can be restored: what the run gives anyway.
                grids[i][t] = [float(resume.corrupted.scores[i])] * n_layers
        known: dict[tuple[int, ...], list[float]] = {}
        for layer in range(n_layers):
            # Clipped windows of a shallow model may be the same layers for several cells.
            layers = (layer,) if kind == "hidden" else self._window(layer, n_layers)
            if layers not in known:
                known[layers] = self._layers(resume, clean, cells, kind, layers)
            for cell, score in zip(cells, known[layers], strict=True):
                grids[cell.prompt][cell.token][layer] = score
        return grids

    def _window(self, layer: int, n_layers: int) -> tuple[int, ...]:
        return tuple(window_layers(layer, width=self.window, n_layers=n_layers, convention=self.window_convention))

    def _layers(
        self, resume: Resumption, clean: CleanRun, cells: Sequence[Cell], kind: Kind, layers: Sequence[int]
    ) -> list[float]:
        """Scores of all cells with these layers restored."""
        values = {layer: clean_values(clean, kind, layer, samples=self.samples) for layer in layers}
        if kind == "hidden":
            (layer,) = layers
            return resume(cells, start=layer + 1, restored=values[layer])
        return resume(cells, start=layers[0], forced={(kind, layer): value for layer, value in values.items()})
