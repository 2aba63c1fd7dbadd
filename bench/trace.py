"""Causal traces: ours against one whole pass for every cell, as the authors' code runs it.

    python bench/trace.py --facts 8 --repeats 3

The slow side is `tests/tracing/naive_trace.py`, written from SPEC §2 alone: one forward pass of 1 + n rows a cell, with
hooks. It traces the same grids (no severed curves) from the same noise; they agree to 1e-5 or the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from timing import Stopwatch, alternate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tracing"))

from naive_trace import grid  # noqa: E402

from romexp.data.known import KnownFacts  # noqa: E402
from romexp.lm.model import LanguageModel, PretrainedModel  # noqa: E402
from romexp.minifact import assets  # noqa: E402
from romexp.tracing.noise import Gaussian, embedding_std  # noqa: E402
from romexp.tracing.prompt import TracedPrompt, prepare_prompts  # noqa: E402
from romexp.tracing.tracer import KINDS, Tracer  # noqa: E402

Grids = list[dict[str, np.ndarray]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument("--naive-facts", type=int, default=2, help="facts of the slow side (default 2)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--window", type=int, default=3)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--model", default=str(assets.model_dir()))
    parser.add_argument("--data", default=str(assets.known_path()))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    options = parser.parse_args()
    lm = PretrainedModel(path=options.model, device=options.device).load()
    facts = KnownFacts(path=options.data).load().items
    scale = 3 * embedding_std(lm, [fact.subject for fact in facts])
    chosen = facts[: options.facts]
    prepared = prepare_prompts(lm, [f.prompt for f in chosen], [f.subject for f in chosen])
    prompts = [p for p in prepared if isinstance(p, TracedPrompt)]
    few = prompts[: options.naive_facts]
    tracer = Tracer(window=options.window, samples=options.samples, severed=False)
    console = Console(stderr=True)
    results, laps = alternate(
        {
            "ours": lambda watch: ours(lm, prompts, tracer, scale, watch),
            "ours, one prompt at a time": lambda watch: one_by_one(lm, few, tracer, scale, watch),
            "one pass a cell": lambda watch: naive(lm, few, tracer, scale, watch),
        },
        repeats=options.repeats,
        device=lm.device,
        say=lambda text: console.print(text, style="dim"),
    )
    counts = {"ours": len(prompts), "ours, one prompt at a time": len(few), "one pass a cell": len(few)}
    each = {name: laps[name]["total"] / counts[name] for name in laps}
    worst = {name: difference(results["one pass a cell"], results[name]) for name in laps}
    show(lm, each, {n: laps[n]["processor"] / counts[n] for n in laps}, worst, counts)
    if options.output:
        options.output.write_text(json.dumps({"seconds_per_fact": each, "differences": worst}, indent=1))
    return int(max(worst.values()) > 1e-5)


def ours(lm: LanguageModel, prompts: list[TracedPrompt], tracer: Tracer, scale: float, watch: Stopwatch) -> Grids:
    with watch("trace"):
        traces = tracer(lm, prompts, noise=Gaussian(scale=scale))
    return [{kind: np.array(cells, dtype=float) for kind, cells in trace.grids.items()} for trace in traces]


def one_by_one(lm: LanguageModel, prompts: list[TracedPrompt], tracer: Tracer, scale: float, watch: Stopwatch) -> Grids:
    return [grids for prompt in prompts for grids in ours(lm, [prompt], tracer, scale, watch)]


def naive(lm: LanguageModel, prompts: list[TracedPrompt], tracer: Tracer, scale: float, watch: Stopwatch) -> Grids:
    with watch("trace"):
        return [
            {
                kind: grid(
                    lm,
                    prompt.ids,
                    prompt.subject_range,
                    prompt.answer,
                    kind=kind,
                    window=tracer.window,
                    scale=scale,
                    samples=tracer.samples,
                )
                for kind in KINDS
            }
            for prompt in prompts
        ]


def difference(expected: Grids, found: Grids) -> float:
    """Largest difference in p(answer) over the facts that both traced."""
    pairs = zip(expected, found, strict=False)
    return max(float(np.abs(a[kind] - b[kind]).max()) for a, b in pairs for kind in KINDS)


def show(
    lm: LanguageModel,
    each: dict[str, float],
    processor: dict[str, float],
    worst: dict[str, float],
    counts: dict[str, int],
) -> None:
    table = Table(
        title=f"Causal traces of {lm.name}, {lm.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for column in ("variant", "facts", "s per fact", "CPU s per fact", "times faster", "largest difference"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, seconds in each.items():
        faster = each["one pass a cell"] / seconds
        cells = (
            name,
            str(counts[name]),
            f"{seconds:.3f}",
            f"{processor[name]:.3f}",
            f"{faster:.1f}",
            f"{worst[name]:.1e}",
        )
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
