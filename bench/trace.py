"""Measures how long causal traces take: with our code, and with one whole pass for every cell as in the authors' code.

    python bench/trace.py --facts 8 --repeats 3
    python bench/trace.py --reference /somewhere/rome

The variant "one pass a cell" is `tests/tracing/naive_trace.py`, written from docs/method.md §2 alone: for each cell it
makes one forward pass of 1 + n rows, with hooks. "authors" is the authors' code. All variants trace the same grids,
without severed curves, of the same facts, taken evenly from the file, with the same noise. If their results differ by
more than 1e-5, the exit status is 1. The table also shows the arithmetic of each variant's matrix products, counted by
torch: if these take nearly all of the time, times cannot differ by more than the arithmetic does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from reference_trace import Grids, authors_tracer
from rich.console import Console
from rich.table import Table
from timing import Stopwatch, alternate, count_flops

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tracing"))

from naive_trace import grid  # noqa: E402

from romexp.data.known import KnownFacts  # noqa: E402
from romexp.lm.model import LanguageModel, PretrainedModel  # noqa: E402
from romexp.minifact import assets  # noqa: E402
from romexp.tracing.noise import Gaussian, embedding_std  # noqa: E402
from romexp.tracing.prompt import TracedPrompt, prepare_prompts  # noqa: E402
from romexp.tracing.tracer import KINDS, Tracer  # noqa: E402

SLOW = "one pass a cell"


def main() -> int:
    options = arguments()
    lm = PretrainedModel(path=options.model, device=options.device).load()
    facts = KnownFacts(path=options.data).load().items
    scale = 3 * embedding_std(lm, [fact.subject for fact in facts])
    chosen = facts[:: max(1, len(facts) // options.facts)][: options.facts]
    prepared = prepare_prompts(lm, [f.prompt for f in chosen], [f.subject for f in chosen])
    prompts = [p for p in prepared if isinstance(p, TracedPrompt)]
    tracer = Tracer(window=options.window, samples=options.samples, severed=False)
    variants: dict[str, Callable[[Sequence[TracedPrompt]], Grids]] = {
        "ours": lambda prompts: ours(lm, prompts, tracer, scale),
        "ours, one prompt at a time": lambda prompts: [g for p in prompts for g in ours(lm, [p], tracer, scale)],
        SLOW: lambda prompts: naive(lm, prompts, tracer, scale),
    }
    if options.reference:
        variants["authors"] = authors_tracer(
            options.reference, lm, path=options.model, window=options.window, samples=options.samples, scale=scale
        )
    arithmetic = {name: operations(trace, prompts) for name, trace in variants.items()}
    console = Console(stderr=True)
    timings = {name: partial(timed, trace, prompts) for name, trace in variants.items()}
    say = partial(console.print, style="dim")
    results, laps = alternate(timings, repeats=options.repeats, device=lm.device, say=say)
    rows = [
        Measured(
            variant=name,
            seconds=laps[name]["total"] / len(prompts),
            processor=laps[name]["processor"] / len(prompts),
            gflop=arithmetic[name] / len(prompts) / 1e9,
            difference=difference(results[SLOW], results[name]),
        )
        for name in variants
    ]
    show(lm, rows, facts=len(prompts), repeats=options.repeats)
    if options.output:
        options.output.write_text(json.dumps({"facts": len(prompts), "rows": [asdict(row) for row in rows]}, indent=1))
    return int(max(row.difference for row in rows) > 1e-5)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--window", type=int, default=3)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--model", default=str(assets.model_dir()))
    parser.add_argument("--data", default=str(assets.known_path()))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--reference", type=Path, help="a checkout of github.com/kmeng01/rome")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    return parser.parse_args()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Medians of one variant, per fact.

    Attributes:
        seconds: wall-clock seconds.
        processor: processor seconds of all threads together.
        gflop: 10⁹ floating-point operations of matrix products.
        difference: largest difference of p(answer) from the variant "one pass a cell".
    """

    variant: str
    seconds: float
    processor: float
    gflop: float
    difference: float


def timed(trace: Callable[[Sequence[TracedPrompt]], Grids], prompts: Sequence[TracedPrompt], watch: Stopwatch) -> Grids:
    with watch("trace"):
        return trace(prompts)


def operations(trace: Callable[[Sequence[TracedPrompt]], Grids], prompts: Sequence[TracedPrompt]) -> int:
    """Floating-point operations of the matrix products, counted by torch in one run.

    This first run also fills caches and loads kernels, before times are measured.
    """
    return count_flops(lambda: trace(prompts))


def ours(lm: LanguageModel, prompts: Sequence[TracedPrompt], tracer: Tracer, scale: float) -> Grids:
    traces = tracer(lm, prompts, noise=Gaussian(scale=scale))
    return [{kind: np.array(cells, dtype=float) for kind, cells in trace.grids.items()} for trace in traces]


def naive(lm: LanguageModel, prompts: Sequence[TracedPrompt], tracer: Tracer, scale: float) -> Grids:
    settings = {"window": tracer.window, "scale": scale, "samples": tracer.samples}
    return [
        {kind: grid(lm, p.ids, p.subject_range, p.answer, kind=kind, **settings) for kind in KINDS} for p in prompts
    ]


def difference(expected: Grids, found: Grids) -> float:
    """Largest difference of p(answer) in any cell."""
    pairs = zip(expected, found, strict=True)
    return max(float(np.abs(a[kind] - b[kind]).max()) for a, b in pairs for kind in KINDS)


def show(lm: LanguageModel, rows: Sequence[Measured], *, facts: int, repeats: int) -> None:
    slow = next(row for row in rows if row.variant == SLOW)
    table = Table(
        title=f"Causal traces of {lm.name}, {lm.device}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        caption=f"{facts} facts, medians of {repeats}, load {os.getloadavg()[0]:.1f}",
    )
    columns = ("variant", "s per fact", "CPU s", "times faster", "GFLOP", "times less", "difference")
    for column in columns:
        table.add_column(column, justify="left" if column == "variant" else "right")
    for row in rows:
        table.add_row(
            row.variant,
            f"{row.seconds:.3f}",
            f"{row.processor:.3f}",
            f"{slow.seconds / row.seconds:.1f}",
            f"{row.gflop:.1f}",
            f"{slow.gflop / row.gflop:.1f}",
            f"{row.difference:.1e}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
