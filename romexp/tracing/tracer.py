"""The settings of causal tracing, and its entry: corrupt the subject, replace one state at a time, and read how much
the model still says the answer (paper §2, docs/method.md §2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from romexp.lm.batching import batched
from romexp.lm.model import LanguageModel
from romexp.tracing.attribution import GRADIENT_SHARE
from romexp.tracing.base_runs import Kind
from romexp.tracing.cells import WindowConvention
from romexp.tracing.check_settings import Direction, Method, Nodes, check_settings
from romexp.tracing.corruption import Corruption
from romexp.tracing.grids import TokenRange
from romexp.tracing.metrics import MetricName
from romexp.tracing.noise import Noise
from romexp.tracing.prompt import TracedPrompt
from romexp.tracing.trace_batch import Trace, trace_batch

__all__ = ["KINDS", "PAPER", "Trace", "Tracer"]

KINDS: tuple[Kind, ...] = ("hidden", "mlp", "attn")

CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS = 2048, 16384
"""Default tokens of a pass. A CPU is fastest if a pass fits its caches; an accelerator needs larger passes."""

SCREEN_POINTS = 3
"""Where the other run is another sentence (token replacement) or the base run is saturated (states of the clean run are
corrupted), the gradient of the base run alone misses the largest cells. Where noise is undone it says as much as
gradients half-way (docs/tracing.md).
"""

PAPER: dict[str, Any] = {
    "corruption": "noise",
    "metric": "probability",
    "direction": "denoise",
    "method": "exact",
    "normalized": False,
}
"""What the paper corrupts by, reads, replaces and computes. Results say where they differ from it."""


@dataclass(frozen=True, kw_only=True)
class Tracer:
    """Settings of causal tracing. The defaults are those of the authors' code, unless noted (docs/method.md §2).

    Attributes:
        nodes: what is traced: `states`, those of `kinds` by token and layer; or the finer parts `heads`, `neurons` and
            `lens` (§2.10).
        top: number of neurons that are listed, and computed if the method is not `attribution`.
        corruption: `noise` on the subject's embeddings; or `str`, symmetric token replacement: the tokens of another
            subject in their place, without noise and with one sample (§2.8).
        metric: what is read at the last token: `probability` or `log_probability` of the answer, `logit_difference`
            between the answer and that of the other subject, or `kl`, the divergence from the clean distribution.
        normalized: averages and figures show the metric on a scale from 0 (corrupted run) to 1 (clean run).
        direction: `denoise` puts clean states into the corrupted run, `noise` corrupted states into the clean run.
        method: `exact` computes every cell; `attribution` estimates every cell from one backward pass; `screen`
            estimates, then computes the cells with the largest estimates (§2.9).
        points: number of points between the two runs at which the gradients of an estimate are taken (integrated
            gradients); None: 1, which is plain attribution patching, but 3 for `screen` of token replacement and of
            the direction `noise`.
        share: the share of a prompt's cells of a kind that `screen` computes.
        at_least: if set, `screen` computes, in place of a share, all cells whose estimated effect is at least this, in
            units of the metric: many where a fact has large effects, few where it has small ones. One number, or one by
            kind; a kind without one is only estimated.
        grad_drop: `screen` ranks cells by GradDrop of AtP*, at the cost of one more backward pass for each layer.
        noise: the code of the noise (docs/method.md §2.3). `s3`: Gaussian with 3 times the standard deviation of the
            subjects' embeddings; a number: Gaussian with this standard deviation; `u0.4`: uniform in [-0.4, 0.4]; `m`:
            multivariate Gaussian of token embeddings; `t5`: Student t with 5 degrees of freedom.
        samples: number of corrupted copies of each prompt; token replacement has one.
        kinds: what is restored: one `hidden` state, or a window of `mlp` or `attn` outputs.
        window: w, the number of layers that are restored together for `mlp` and `attn`; None takes `usual_window`, and
            1 where cells are estimated.
        usual_window: the w that fits the model's depth.
        window_convention: `code` restores l - ⌊w/2⌋ … l + ⌈w/2⌉ - 1, `paper` restores l - ⌊(w-1)/2⌋ … l + ⌊w/2⌋.
        token_range: trace `all` tokens, or `subject_last` alone.
        severed: also trace the severed paths (paper Fig. 3, docs/method.md §2.5); exactly, in the direction `denoise`.
        severed_second_draw: if true, the severed run uses a second draw of noise, as in the authors' code. The default
            uses the same noise, unlike the authors' code.
        replace: the noise replaces the embeddings instead of being added to them.
        replace_in_low_score: apply `replace` also to the low score; the authors' code does not.
        extra_token: number of tokens after the subject that are corrupted too.
        seed_per_case: each fact has its own noise. By default all prompts use the same random stream, as in the
            authors' code.
        max_batch_tokens: tokens of one forward pass; None chooses by device. A batch is halved if memory runs out.

    Raises:
        ConfigError: a setting has a value that is not possible, or makes no sense beside another.
    """

    nodes: Nodes = "states"
    top: int = 20
    corruption: Corruption = "noise"
    metric: MetricName = "probability"
    normalized: bool = False
    direction: Direction = "denoise"
    method: Method = "exact"
    points: int | None = None
    share: float = 0.05
    at_least: float | Mapping[str, float] | None = None
    grad_drop: bool = False
    noise: str | float = "s3"
    samples: int = 10
    kinds: Sequence[Kind] = KINDS
    window: int | None = None
    usual_window: int = 10
    window_convention: WindowConvention = "code"
    token_range: TokenRange = "all"
    severed: bool = True
    severed_second_draw: bool = False
    replace: bool = False
    replace_in_low_score: bool = False
    extra_token: int = 0
    seed_per_case: bool = False
    max_batch_tokens: int | None = None

    def __post_init__(self) -> None:
        check_settings(self, kinds=KINDS)

    @property
    def width(self) -> int:
        """w, the number of layers that are replaced together for `mlp` and `attn`."""
        if self.window is not None:
            return self.window
        return self.usual_window if self.method == "exact" and self.nodes == "states" else 1

    @property
    def usual_points(self) -> int:
        """The number of points at which gradients are taken."""
        if self.points is not None:
            return self.points
        far = self.corruption == "str" or not self.restores
        return SCREEN_POINTS if self.method == "screen" and far else 1

    def least(self, kind: Kind) -> float | None:
        """The size from which `screen` computes cells of a kind; None where it computes a share."""
        if isinstance(self.at_least, Mapping):
            return self.at_least.get(kind, math.inf)
        return self.at_least

    @property
    def copies(self) -> int:
        """The number of corrupted copies of each prompt."""
        return self.samples if self.corruption == "noise" else 1

    @property
    def restores(self) -> bool:
        """Whether clean states are put into the corrupted run, and not the other way round."""
        return self.direction == "denoise"

    @property
    def traces_severed(self) -> bool:
        """Whether severed paths are traced. They are defined where states are restored."""
        return self.severed and self.restores and self.method == "exact"

    @property
    def setting(self) -> dict[str, Any]:
        """The parts in which it differs from what the paper does; empty if it does the same."""
        return {name: value for name, usual in PAPER.items() if (value := getattr(self, name)) != usual}

    def __call__(
        self,
        lm: LanguageModel,
        prompts: Sequence[TracedPrompt],
        *,
        noise: Noise | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Trace]:
        """Trace prompts. The result of a prompt does not depend on the other prompts.

        Args:
            prompts: for token replacement, each with its partner.
            noise: the noise of `self.noise`, made once for the data set by `make_noise`; token replacement needs none.
            seeds: one per prompt, used if `seed_per_case` is true.
        """

        def work(batch: Sequence[tuple[TracedPrompt, int]]) -> list[Trace]:
            streams = [np.random.RandomState(seed % 2**32 if self.seed_per_case else 1) for _, seed in batch]
            drawn = noise if self.corruption == "noise" else None
            return trace_batch(self, lm, [prompt for prompt, _ in batch], noise=drawn, streams=streams)

        seeded = list(zip(prompts, seeds or [1] * len(prompts), strict=True))
        budget = self.batch_tokens(lm) // self.copies
        if self.method != "exact":
            budget //= GRADIENT_SHARE
        return batched(work, seeded, [len(p.ids) for p in prompts], max_tokens=budget)

    def batch_tokens(self, lm: LanguageModel) -> int:
        """`max_batch_tokens`, or the device's default if that is None."""
        if self.max_batch_tokens is not None:
            return self.max_batch_tokens
        return CPU_BATCH_TOKENS if lm.device.type == "cpu" else DEVICE_BATCH_TOKENS
