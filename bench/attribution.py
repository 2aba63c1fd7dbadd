"""Measures how good attribution patching is: what it and screening find of an exact trace, and at what cost.

    python bench/attribution.py --facts 8
    python bench/attribution.py --corruption str --metric logit_difference --direction noise
    python bench/attribution.py --model HuggingFaceTB/SmolLM2-135M --data known_1000.json --facts 2

Every variant traces the same facts, taken evenly from the file, with windows of one layer and the same noise. For each
kind of state the cells of all facts are pooled, without those that no method computes. The table shows Spearman's
correlation of the effects with the exact ones; how much of the exact top 1 % and 5 % (by size of effect) is found; how
much of the top 1 % of each fact's own cells, on average; and the processor time as a share of the exact trace's. An
estimate has found a cell that is in its own top share; screening has found a cell that it computed exactly.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from romexp.data.known import KnownFacts
from romexp.errors import without_errors
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.minifact import assets
from romexp.tracing.corruption import CORRUPTIONS
from romexp.tracing.metrics import METRICS
from romexp.tracing.noise import Gaussian, embedding_std
from romexp.tracing.partners import find_partners
from romexp.tracing.prompt import TracedPrompt, prepare_prompts
from romexp.tracing.tracer import KINDS, Trace, Tracer

VARIANTS: dict[str, dict[str, object]] = {
    "attribution": {"method": "attribution"},
    "attribution, 3 points": {"method": "attribution", "points": 3},
    "screen, 1 point": {"method": "screen", "points": 1},
    "screen, 3 points": {"method": "screen", "points": 3},
    "screen, GradDrop": {"method": "screen", "grad_drop": True},
    "screen by size, 1 point": {"method": "screen", "points": 1},
    "screen by size, 3 points": {"method": "screen", "points": 3},
}


def main() -> int:
    options = arguments()
    lm = PretrainedModel(path=options.model, device=options.device).load()
    prompts, noise = prepared(lm, options)
    usual = {name: getattr(options, name) for name in ("corruption", "metric", "direction", "samples", "share")}
    exact, exact_time = timed(lm, Tracer(window=1, severed=False, **usual), prompts, noise)
    rows = []
    for variant in options.variants:
        at_least = options.at_least if variant.startswith("screen by size") else None
        tracer = Tracer(window=1, severed=False, at_least=at_least, **usual, **VARIANTS[variant])
        found, seconds = timed(lm, tracer, prompts, noise)
        rows += [
            compared(
                variant,
                kind,
                exact,
                found,
                restores=options.direction == "denoise",
                cost=seconds / exact_time,
                seconds=seconds / len(prompts),
            )
            for kind in KINDS
        ]
    show(lm, rows, facts=len(prompts), seconds=exact_time / len(prompts), options=options)
    if options.output:
        options.output.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument(
        "--at-least",
        type=json.loads,
        default=0.02,
        help="the size from which screening by size computes; or sizes by kind, as JSON",
    )
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--skip", type=int, default=0, help="facts that are left out before")
    parser.add_argument("--corruption", choices=CORRUPTIONS, default="noise")
    parser.add_argument("--metric", choices=METRICS, default="probability")
    parser.add_argument("--direction", choices=["denoise", "noise"], default="denoise")
    parser.add_argument("--model", default=str(assets.model_dir()))
    parser.add_argument("--data", default=str(assets.known_path()))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    return parser.parse_args()


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One variant against the exact trace, for one kind of state.

    Attributes:
        spearman: rank correlation of effects.
        top_1, top_5: the share of the exact top 1 % and 5 % that is found.
        own_top_1: that of the top 1 % of each fact's own cells, averaged over facts.
        cost: processor time as a share of the exact trace's.
        seconds: processor seconds per fact.
    """

    variant: str
    kind: str
    spearman: float
    top_1: float
    top_5: float
    own_top_1: float
    cost: float
    seconds: float


def prepared(lm: LanguageModel, options: argparse.Namespace) -> tuple[list[TracedPrompt], Gaussian]:
    facts = KnownFacts(path=options.data).load().items
    wanted = options.skip + options.facts
    chosen = facts[:: max(1, len(facts) // wanted)][options.skip : wanted]
    pairs = [
        (fact, prompt)
        for fact, prompt in zip(
            chosen, prepare_prompts(lm, [f.prompt for f in chosen], [f.subject for f in chosen]), strict=True
        )
        if isinstance(prompt, TracedPrompt)
    ]
    prompts = [prompt for _, prompt in pairs]
    if options.corruption == "str":
        prompts = without_errors(find_partners(lm, [f for f, _ in pairs], prompts, pool=facts, seed=0))
    return prompts, Gaussian(scale=3 * embedding_std(lm, [fact.subject for fact in facts]))


def timed(
    lm: LanguageModel, tracer: Tracer, prompts: Sequence[TracedPrompt], noise: Gaussian
) -> tuple[list[Trace], float]:
    """The traces, and the processor seconds that they took."""
    tracer(lm, prompts[:1], noise=noise)  # fills caches
    began = time.process_time()
    return tracer(lm, prompts, noise=noise), time.process_time() - began


def compared(
    variant: str, kind: str, exact: list[Trace], found: list[Trace], *, restores: bool, cost: float, seconds: float
) -> Compared:
    screened = variant.startswith("screen")
    by_fact = [
        (effects_of(a, kind, restores=restores), effects_of(b, kind, restores=restores), computed(b, kind))
        for a, b in zip(exact, found, strict=True)
    ]
    everywhere = [np.concatenate(parts) for parts in zip(*by_fact, strict=True)]
    return Compared(
        variant=variant,
        kind=kind,
        spearman=float(spearmanr(*everywhere[:2]).statistic),
        top_1=recall(*everywhere, share=0.01, screened=screened),
        top_5=recall(*everywhere, share=0.05, screened=screened),
        own_top_1=float(np.mean([recall(*parts, share=0.01, screened=screened) for parts in by_fact])),
        cost=cost,
        seconds=seconds,
    )


def recall(exact: np.ndarray, effects: np.ndarray, seen: np.ndarray, *, share: float, screened: bool) -> float:
    """How much of the exact top share screening computed; or, without screening, is in the top share of the estimates.

    Args:
        exact, effects: the effects of the same cells, exact and as they were found.
        seen: whether each was computed.
    """
    count = math.ceil(share * len(exact))
    top = np.argsort(-np.abs(exact), kind="stable")[:count]
    if screened:
        return float(seen[top].mean())
    return len({*top.tolist()} & {*np.argsort(-np.abs(effects), kind="stable")[:count].tolist()}) / count


def effects_of(trace: Trace, kind: str, *, restores: bool) -> np.ndarray:
    """The cells' scores less the score with nothing replaced."""
    return cells_of(trace, np.array(trace.grids[kind], dtype=float)) - base_score(trace, restores)


def computed(trace: Trace, kind: str) -> np.ndarray:
    """Whether screening computed each cell."""
    marks = np.zeros(np.shape(trace.grids[kind]), dtype=bool)
    for token, layer in trace.exact_cells.get(kind, ()):
        marks[token, layer] = True
    return cells_of(trace, marks)


def cells_of(trace: Trace, grid: np.ndarray) -> np.ndarray:
    """The cells that are computed: from the subject on, and of the last layer the last token's alone."""
    begin = trace.prompt.subject_range[0]
    return np.concatenate([grid[begin:, :-1].ravel(), grid[-1:, -1]])


def base_score(trace: Trace, restores: bool) -> float:
    return trace.low_score if restores else trace.high_score


def show(
    lm: LanguageModel, rows: Sequence[Compared], *, facts: int, seconds: float, options: argparse.Namespace
) -> None:
    how = f"{options.corruption}, {options.metric}, {options.direction}"
    table = Table(
        title=f"Attribution patching against exact traces of {lm.name}: {how}",
        caption=f"{facts} facts; an exact trace takes {seconds:.2f} s of processor time per fact",
    )
    for column in ("variant", "kind", "Spearman", "top 1 %", "top 5 %", "own 1 %", "CPU s", "of exact"):
        table.add_column(column, justify="left" if column in ("variant", "kind") else "right")
    for row in rows:
        recalls = [f"{row.spearman:.2f}", *(f"{found:.0%}" for found in (row.top_1, row.top_5, row.own_top_1))]
        table.add_row(row.variant, row.kind, *recalls, f"{row.seconds:.3f}", f"{row.cost:.0%}")
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
