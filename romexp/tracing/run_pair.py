"""The base run of one prompt and the run whose states replace its own, with the inputs of chosen linear maps
(docs/method.md §2.10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from romexp.lm.forward import BlockInputs, Row, make_inputs, run_blocks
from romexp.lm.hooks import Change, capture, patch
from romexp.lm.model import LanguageModel
from romexp.tracing.corruption import corrupt, corrupted_range, replace_subjects, unchanged
from romexp.tracing.metrics import Metric, make_metric
from romexp.tracing.module_inputs import patch_inputs
from romexp.tracing.noise import Noise
from romexp.tracing.prompt import TracedPrompt

if TYPE_CHECKING:
    from romexp.tracing.tracer import Tracer


@dataclass(frozen=True, kw_only=True, eq=False)
class RunPair:
    """Two runs of n copies of one prompt.

    Attributes:
        change: the change of the embeddings that makes the base run.
        base: the inputs of the linear maps in the base run, by path (n × tokens × features).
        source: the same in the other run.
        blocks: the inputs of the blocks in the base run (layers × n × tokens × hidden size).
        inputs: token ids, positions and mask of n rows.
        high: the metric of the clean run.
        low: the metric of the corrupted run, averaged over its copies.
        restores: whether the base run is the corrupted one.
    """

    lm: LanguageModel
    prompt: TracedPrompt
    metric: Metric
    change: Change
    base: Mapping[str, torch.Tensor]
    source: Mapping[str, torch.Tensor]
    blocks: torch.Tensor
    inputs: BlockInputs
    high: float
    low: float
    restores: bool

    @property
    def score(self) -> float:
        """The metric of the base run."""
        return self.low if self.restores else self.high

    @property
    def first(self) -> int:
        """The first token whose states differ between the runs: that of the subject."""
        return self.prompt.subject_range[0]

    def gradients(self, paths: Sequence[str]) -> dict[str, torch.Tensor]:
        """∂metric/∂input of linear maps in the base run, by path (n × tokens × features)."""
        leaves = {path: torch.zeros_like(self.base[path], requires_grad=True) for path in paths}
        probes = {path: _plus(leaf) for path, leaf in leaves.items()}
        embedding = self.lm.architecture.embedding
        with torch.enable_grad(), patch(self.lm, {embedding: self.change}), patch_inputs(self.lm, probes):
            total = self._scores(run_blocks(self.lm, self.inputs)).sum()
            found = torch.autograd.grad(total, list(leaves.values()))
        return dict(zip(leaves, found, strict=True))

    @torch.no_grad()
    def replaced(self, layer: int, path: str, changes: Sequence[Change], *, max_tokens: int) -> list[float]:
        """The metric with a part of one linear map's input replaced, averaged over copies, for each of some changes.

        Args:
            layer: of the linear map; the blocks from it on run again.
            changes: each takes and gives (n × tokens × features).
            max_tokens: tokens of one pass.
        """
        n, width = self.inputs.ids.shape
        size = max(1, max_tokens // (n * width))
        scores: list[float] = []
        for start in range(0, len(changes), size):
            some = changes[start : start + size]
            rows = torch.arange(n, device=self.inputs.ids.device).repeat(len(some))

            def change(old: torch.Tensor, some: Sequence[Change] = some) -> torch.Tensor:
                parts = zip(old.split(n), some, strict=True)
                return torch.cat([each(part) for part, each in parts])

            with patch_inputs(self.lm, {path: change}):
                final = run_blocks(self.lm, self.inputs.select(rows), start=layer, hidden=self.blocks[layer][rows])
            scores += self._scores(final).reshape(len(some), n).mean(dim=1).tolist()
        return scores

    def _scores(self, final: torch.Tensor) -> torch.Tensor:
        which = torch.zeros(len(final), dtype=torch.long, device=final.device)
        return self.metric.of_states(self.lm, final[:, -1], which)


def _plus(leaf: torch.Tensor) -> Change:
    return lambda old: old + leaf


@torch.no_grad()
def run_pair(
    tracer: Tracer, lm: LanguageModel, prompt: TracedPrompt, paths: Sequence[str], *, noise: Noise | None, seed: int
) -> RunPair:
    """Make both runs of a prompt, with the corruption, metric and direction of a tracer.

    Args:
        paths: of the linear maps whose inputs are kept.
        seed: of the noise, read if the tracer has noise of its own for each fact.
    """
    n = tracer.copies
    corruption = _corruption(tracer, lm, prompt, noise, seed)
    inputs = make_inputs(lm, [Row.text(prompt.ids)] * n)
    clean, corrupted = (_run(lm, inputs, paths, change) for change in (unchanged, corruption))
    metric = make_metric(lm, tracer.metric, [prompt], clean.final[:1, -1])
    high, low = (float(metric.mean(lm, run.final[:, -1], [0], samples=n)) for run in (clean, corrupted))
    base, source = (corrupted, clean) if tracer.restores else (clean, corrupted)
    return RunPair(
        lm=lm,
        prompt=prompt,
        metric=metric,
        change=corruption if tracer.restores else unchanged,
        base=base.kept,
        source=source.kept,
        blocks=base.blocks,
        inputs=inputs,
        high=high,
        low=low,
        restores=tracer.restores,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    kept: Mapping[str, torch.Tensor]
    blocks: torch.Tensor
    final: torch.Tensor


def _run(lm: LanguageModel, inputs: BlockInputs, paths: Sequence[str], change: Change) -> _Run:
    blocks = [lm.architecture.block_name(layer) for layer in range(lm.n_layers)]
    with patch(lm, {lm.architecture.embedding: change}), capture(lm, [*paths, *blocks], at="input") as seen:
        final = run_blocks(lm, inputs)
    return _Run(
        kept={path: seen[path] for path in paths},
        blocks=torch.stack([seen[path] for path in blocks]),
        final=final,
    )


def _corruption(tracer: Tracer, lm: LanguageModel, prompt: TracedPrompt, noise: Noise | None, seed: int) -> Change:
    if tracer.corruption == "str" or noise is None:
        return replace_subjects(lm, [prompt], samples=tracer.copies)
    begin, end = corrupted_range(prompt, tracer.extra_token)
    stream = np.random.RandomState(seed % 2**32 if tracer.seed_per_case else 1)
    drawn = noise.draw(stream, (tracer.copies, end - begin, lm.hidden_size))
    return corrupt([prompt], [drawn], samples=tracer.copies, extra_token=tracer.extra_token, replace=tracer.replace)
