"""Measures how long the attribution scores of Knowledge Neurons take: with our code, and with whole passes for every
layer and token, as in the authors' code.

    python bench/kn.py --records 50 --repeats 3

The slow variant is written from docs/method.md §4.2 alone. For every layer and every token of the true object it makes
one pass over the prompt to get the neurons' values, and one pass over `--steps` copies of the prompt in which these
values are scaled. If scores differ by more than 1e-3 of the highest score, the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from timing import Stopwatch, alternate

from romexp.data.counterfact import CounterFact
from romexp.editors.kn.attribution import Text, attribute
from romexp.editors.kn.texts import attributed_texts, fact_texts
from romexp.errors import raise_first_error
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.minifact import assets

Scores = list[torch.Tensor]
OURS, ALONE, PLAIN = "ours", "ours, one at a time", "layer by layer"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=50)
    parser.add_argument(
        "--single-records", type=int, default=5, help="number of records for the other two variants (default 5)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--model", default=str(assets.model_dir()))
    parser.add_argument("--data", default=str(assets.counterfact_path()))
    parser.add_argument("--leading-space", action="store_true", help="tokenize the object with the space before it")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    lm = PretrainedModel(path=options.model, device=options.device).load()
    cases = CounterFact(path=options.data, limit=options.records).load().items
    requests = [case.request for case in cases]
    facts = fact_texts(lm, requests, ["{}"], leading_space=options.leading_space, extend_prompt=False)
    texts = [text for ((text,),) in attributed_texts(lm, raise_first_error(facts), extend_prompt=False)]
    few = texts[: options.single_records]
    console = Console(stderr=True)
    variants = {
        OURS: lambda watch: ours(lm, texts, options.steps, watch),
        ALONE: lambda watch: [scores for text in few for scores in ours(lm, [text], options.steps, watch)],
        PLAIN: lambda watch: [plain(lm, text, options.steps, watch) for text in few],
    }
    for run in variants.values():
        run(Stopwatch(lm.device))  # the first call is not measured
    say = partial(console.print, style="dim")
    results, laps = alternate(variants, repeats=options.repeats, device=lm.device, say=say)
    counts = {OURS: len(texts), ALONE: len(few), PLAIN: len(few)}
    rows = {
        name: {
            "records": counts[name],
            "seconds": laps[name]["total"] / counts[name],
            "processor": laps[name]["processor"] / counts[name],
            "difference": difference(results[PLAIN], results[name]),
        }
        for name in variants
    }
    show(lm, rows)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1))
    return int(max(row["difference"] for row in rows.values()) > 1e-3)


def ours(lm: LanguageModel, texts: list[Text], steps: int, watch: Stopwatch) -> Scores:
    with watch("attribute"):
        return [found.scores for found in attribute(lm, texts, steps=steps)]


def plain(lm: LanguageModel, text: Text, steps: int, watch: Stopwatch) -> torch.Tensor:
    with watch("attribute"):
        by_token = [
            torch.stack([layer_scores(lm, text.ids, token, layer, steps) for layer in range(lm.n_layers)])
            for token in text.targets
        ]
        return torch.stack(by_token).mean(dim=0).cpu()


def layer_scores(lm: LanguageModel, ids: tuple[int, ...], token: int, layer: int, steps: int) -> torch.Tensor:
    """Attribution scores of one layer (neurons) for one token of the object."""
    module = lm.module(lm.architecture.mlp_in_name(layer))
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _m, _x, y: seen.append(y[0, -1].detach()))
    with torch.no_grad():
        lm.model(input_ids=torch.tensor([ids], device=lm.device), use_cache=False)
    handle.remove()
    alphas = torch.linspace(0, 1, steps, device=lm.device)
    scaled = (alphas[:, None] * seen[0]).requires_grad_(True)
    handle = module.register_forward_hook(lambda _m, _x, y: torch.cat([y[:, :-1], scaled[:, None]], dim=1))
    logits = lm.model(input_ids=torch.tensor([ids] * steps, device=lm.device), use_cache=False).logits
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, -1].softmax(dim=-1)[:, token].sum(), scaled)
    return gradient.sum(dim=0) * seen[0] / steps


def difference(expected: Scores, found: Scores) -> float:
    """Largest difference of a score, relative to the text's highest score, over the texts that both lists have."""
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(expected, found, strict=False))


def show(lm: LanguageModel, rows: dict[str, dict[str, float]]) -> None:
    machine = f"{lm.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    table = Table(title=f"Knowledge Neurons' scores, {lm.name}, {machine}")
    table.add_column("variant", no_wrap=True)
    for column in ("records", "s / record", "CPU s / record", "times faster", "largest difference"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        faster = rows[PLAIN]["seconds"] / row["seconds"]
        cells = (f"{row['seconds']:.4f}", f"{row['processor']:.4f}", f"{faster:.1f}", f"{row['difference']:.1e}")
        table.add_row(name, str(row["records"]), *cells)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
