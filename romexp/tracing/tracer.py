"""Causal tracing of a batch of prompts: corrupt the subject, restore one state at a time, and read the probability of
the answer (paper §2, docs/method.md §2).
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
"""Default tokens of a pass. A CPU is fastest if a pass fits its caches; an accelerator needs larger passes."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The trace of one prompt. Each score is p(answer), averaged over samples; it is not a difference.

    Attributes:
        low_score: the score with no state restored.
        grids: scores by kind as [tokens][layers]; None for cells outside `token_range`.
        severed: scores by severed kind (`mlp`, `attn`) as [layers] (docs/method.md §2.5).
    """

    prompt: TracedPrompt
    low_score: float
    grids: dict[str, list[list[float | None]]] = field(default_factory=dict)
    severed: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tracer:
    """Settings of causal tracing. The defaults are those of the authors' code, unless noted (docs/method.md §2).

    Attributes:
        noise: the code of the noise (docs/method.md §2.3). `s3`: Gaussian with 3 times the standard deviation of the
            subjects' embeddings; a number: Gaussian with this standard deviation; `u0.4`: uniform in [-0.4, 0.4]; `m`:
            multivariate Gaussian of token embeddings; `t5`: Student t with 5 degrees of freedom.
        samples: number of corrupted copies of each prompt.
        kinds: what is restored: one `hidden` state, or a window of `mlp` or `attn` outputs.
        window: w, the number of layers that are restored together for `mlp` and `attn`.
        window_convention: `code` restores l - ⌊w/2⌋ … l + ⌈w/2⌉ - 1, `paper` restores l - ⌊(w-1)/2⌋ … l + ⌊w/2⌋.
        token_range: trace `all` tokens, or `subject_last` alone.
        severed: also trace the severed paths (paper Fig. 3, docs/method.md §2.5).
        severed_second_draw: if true, the severed run uses a second draw of noise, as in the authors' code. The default
            uses the same noise, unlike the authors' code.
        replace: the noise replaces the embeddings instead of being added to them.
        replace_in_low_score: apply `replace` also to the low score; the authors' code does not.
        extra_token: number of tokens after the subject that are corrupted too.
        seed_per_case: each fact has its own noise. By default all prompts use the same random stream, as in the
            authors' code.
        max_batch_tokens: tokens of one forward pass; None chooses by device. A batch is halved if memory runs out.

    Raises:
        ConfigError: a setting has a value that is not possible.
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
        """Trace prompts. The result of a prompt does not depend on the other prompts.

        Args:
            noise: the noise of `self.noise`, made once for the data set by `make_noise`.
            seeds: one per prompt, used if `seed_per_case` is true.
        """

        def work(batch: Sequence[tuple[TracedPrompt, int]]) -> list[Trace]:
            return self._trace(lm, [prompt for prompt, _ in batch], noise, [seed for _, seed in batch])

        seeded = list(zip(prompts, seeds or [1] * len(prompts), strict=True))
        budget = self.batch_tokens(lm) // self.samples
        return batched(work, seeded, [len(p.ids) for p in prompts], max_tokens=budget)

    def batch_tokens(self, lm: LanguageModel) -> int:
        """`max_batch_tokens`, or the device's default if that is None."""
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
            second_change: Change | None = None
            if self.severed_second_draw:
                second = [self._draw(lm, p, noise, stream) for p, stream in zip(prompts, streams, strict=True)]
                second_change = self._change(prompts, second, replace=self.replace)
            severed = severed_curves(resume, clean, change=second_change)
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
        """Scores of one kind as [prompts][tokens][layers]."""
        prompts, n_layers = resume.prompts, resume.lm.n_layers
        grids: list[list[list[float | None]]] = [[[None] * n_layers for _ in p.ids] for p in prompts]
        cells = []
        for i, p in enumerate(prompts):
            begin, end = p.subject_range
            tokens = range(len(p.ids)) if self.token_range == "all" else range(end - 1, end)
            cells += [Cell(prompt=i, token=t) for t in tokens if t >= begin]
            for t in (t for t in tokens if t < begin):
                # Tokens before the subject are not corrupted, so restoring them changes nothing.
                grids[i][t] = [float(resume.corrupted.scores[i])] * n_layers
        scores_of_window: dict[tuple[int, ...], list[float]] = {}
        for layer in range(n_layers):
            # In a shallow model the windows of several cells may be cut off to the same layers.
            layers = (layer,) if kind == "hidden" else self._window(layer, n_layers)
            if layers not in scores_of_window:
                scores_of_window[layers] = self._restored_scores(resume, clean, cells, kind, layers)
            for cell, score in zip(cells, scores_of_window[layers], strict=True):
                grids[cell.prompt][cell.token][layer] = score
        return grids

    def _window(self, layer: int, n_layers: int) -> tuple[int, ...]:
        return tuple(window_layers(layer, width=self.window, n_layers=n_layers, convention=self.window_convention))

    def _restored_scores(
        self, resume: Resumption, clean: CleanRun, cells: Sequence[Cell], kind: Kind, layers: Sequence[int]
    ) -> list[float]:
        """Scores of all cells with the kind's outputs in these layers restored."""
        values = {layer: clean_values(clean, kind, layer, samples=self.samples) for layer in layers}
        if kind == "hidden":
            (layer,) = layers
            return resume(cells, start=layer + 1, restored=values[layer])
        return resume(cells, start=layers[0], forced={(kind, layer): value for layer, value in values.items()})
