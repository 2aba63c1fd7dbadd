"""Many edits: facts per second by batch size against one by one, and memory as edits grow.

    python bench/lifelong.py --records 64                           # facts of minifact
    python bench/lifelong.py --model smollm2 --data counterfact.json --records 50
    python bench/lifelong.py --reference /somewhere/memit

Three things are measured. *Values*: the optimization of target values, with `--batches` facts at a time; the values
must agree with those found one by one within 1e-3, or the exit status is 1. With `--reference`, a checkout of the
authors' MEMIT, their code finds the same values in turn. *Insertion*: keys, normal equations and the low-rank edit for
`--insert` facts at once, with the values at hand. The time of an insertion does not depend on the values, so they are
those with which the optimization begins. *Sequence*: everything, in steps of `--step` facts, and what the state of the
sequence holds after each step.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from reference_memit import Values, authors_values
from rich.console import Console
from rich.table import Table
from timing import Stopwatch, alternate

import romexp
from romexp.api.methods import editor_for, resources_for
from romexp.data.counterfact import CounterFact
from romexp.editors.base import Resources
from romexp.editors.contexts import context_groups
from romexp.editors.many.base import SpreadEditor
from romexp.editors.many.layers import pick_layers
from romexp.editors.sequence import SequenceState, edit_together
from romexp.editors.values.targets import ValueFinder
from romexp.editors.values.texts import EditText, edit_texts
from romexp.errors import without_errors
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.minifact import assets

AGREE = 1e-3
AUTHORS = "authors, 1"
"""The variant of the authors' code, which optimizes one fact at a time."""


def main() -> int:
    options = _arguments()
    torch.set_num_threads(options.threads)
    lm = romexp.load(options.model)
    wanted = max(options.records, options.insert)
    inserted = [case.request for case in CounterFact(path=options.data, limit=wanted).load().items]
    requests, inserted = inserted[: options.records], inserted[: options.insert or options.records]
    editor = editor_for(lm, options.method)
    if not isinstance(editor, SpreadEditor):
        sys.exit(f"--method: {options.method} does not write several facts by one edit")
    with resources_for(lm, None, seed=0) as known, tempfile.TemporaryDirectory() as folder:
        templates = context_groups(
            lm,
            given=editor.context_templates,
            length_counts=editor.context_template_length_params,
            seed=0,
            cache_dir=known.cache_dir,
        )
        editor = replace(editor, context_templates=[list(group) for group in templates])
        resources = replace(known, cache_dir=Path(folder))
        found = {
            "values": _values(lm, editor, requests, templates, options),
            "insertion": _insertion(lm, replace(editor, v_num_grad_steps=1), inserted, resources),
            "sequence": _sequence(lm, editor, requests, resources, step=options.step),
        }
    _show(found)
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if max(row["difference"] for row in found["values"]) < AGREE else 1


def _values(
    lm: LanguageModel,
    editor: SpreadEditor,
    requests: Sequence[EditRequest],
    templates: Sequence[Sequence[str]],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Facts per second of the optimization by number of facts at a time; one by one only for the first facts."""
    variants = _variants(lm, editor, requests, templates, options)
    variants["1"](Stopwatch(lm.device))  # what is done only once is not timed
    results, laps = alternate(variants, repeats=options.repeats, device=lm.device, say=_say)
    single = results["1"].flatten(1)
    rows: list[dict[str, Any]] = []
    for size, values in results.items():
        count = len(values)
        off = (values.flatten(1)[: len(single)] - single).norm(dim=1) / single.norm(dim=1)
        rows.append(
            {
                "batch": size if size == AUTHORS else int(size),
                "facts": count,
                "per_second": count / laps[size]["total"],
                "per_processor_second": count / laps[size]["processor"],
                "difference": float(off.max()),
            }
        )
    return rows


def _variants(
    lm: LanguageModel,
    editor: SpreadEditor,
    requests: Sequence[EditRequest],
    templates: Sequence[Sequence[str]],
    options: argparse.Namespace,
) -> dict[str, Callable[[Stopwatch], torch.Tensor]]:
    """What finds the target values, by number of facts at a time; the authors' code too, if it is given."""
    flat = [template for group in templates for template in group]
    texts = without_errors(edit_texts(lm, requests, flat, fact_token=editor.fact_token))
    few = texts[: options.single_records]
    layer = pick_layers(editor, lm)[-1]
    finder = ValueFinder(
        layer=layer, place=editor._place, settings=editor.value_settings(), batch_size=1, cache_dir=None
    )

    def run(size: int, own: Sequence[Sequence[EditText]], watch: Stopwatch) -> torch.Tensor:
        with watch("values"):
            return replace(finder, batch_size=size)(lm, own).values

    variants: dict[str, Callable[[Stopwatch], torch.Tensor]] = {
        str(size): partial(run, size, few if size == 1 else texts) for size in sorted({1, *options.batches})
    }
    if options.reference:
        path = str(lm.model.name_or_path)
        theirs = authors_values(options.reference, lm, editor, path=path, layer=layer, templates=templates)
        variants[AUTHORS] = partial(_timed, theirs, requests[: options.single_records])
    return variants


def _timed(values: Values, requests: Sequence[EditRequest], watch: Stopwatch) -> torch.Tensor:
    with watch("values"):
        return values(requests)


def _insertion(
    lm: LanguageModel, editor: SpreadEditor, requests: Sequence[EditRequest], resources: Resources
) -> dict[str, float]:
    """Seconds for writing all facts by one edit, with their values in the cache."""
    edit_together(editor, lm, requests, resources=resources)
    start, processor = time.perf_counter(), time.process_time()
    made = edit_together(editor, lm, requests, resources=resources)
    return {
        "facts": made.state.n_edits,
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
    }


def _sequence(
    lm: LanguageModel, editor: SpreadEditor, requests: Sequence[EditRequest], resources: Resources, *, step: int
) -> list[dict[str, float]]:
    """After each step the number of edits, the seconds of the step, and the memory of the state and of the process."""
    state, rows = SequenceState(), []
    for start in range(0, len(requests), step):
        began = time.perf_counter()
        made = edit_together(editor, lm, requests[start : start + step], resources=resources, state=state)
        state = made.state
        held = [*state.delta.tensors().values(), *state.keys.values()]
        rows.append(
            {
                "edits": state.n_edits,
                "seconds": time.perf_counter() - began,
                "state_mib": sum(tensor.nbytes for tensor in held) / 2**20,
                "largest_process_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
            }
        )
    return rows


def _show(found: Mapping[str, Any]) -> None:
    console = Console()
    table = Table(
        "facts at a time", "facts", "facts/s", "facts per CPU s", "times one by one", "difference", title="Values"
    )
    alone = found["values"][0]["per_processor_second"]
    for row in found["values"]:
        table.add_row(
            str(row["batch"]),
            str(row["facts"]),
            f"{row['per_second']:.2f}",
            f"{row['per_processor_second']:.2f}",
            f"{row['per_processor_second'] / alone:.2f}",
            f"{row['difference']:.1e}",
        )
    console.print(table)
    inserted = found["insertion"]
    seconds = f"{inserted['seconds']:.2f} s ({inserted['processor_seconds']:.2f} CPU s)"
    console.print(f"insertion of {inserted['facts']} facts by one edit, values at hand: {seconds}")
    table = Table("edits", "s of the step", "state MiB", "process MiB at most", title="Sequence")
    for row in found["sequence"]:
        numbers = (row["seconds"], row["state_mib"], row["largest_process_mib"])
        table.add_row(str(row["edits"]), *(f"{number:.1f}" for number in numbers))
    console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="minifact", help="what romexp.load takes")
    add("--method", default="memit", help="memit, pmet, emmet or alphaedit, with the settings of the model")
    add("--data", default=str(assets.counterfact_path()), help="records in CounterFact's schema; minifact's by default")
    add("--records", type=int, default=64, help="number of facts")
    add("--insert", type=int, default=0, help="number of facts that are inserted by one edit; 0 takes --records")
    add("--single-records", type=int, default=8, help="number of facts, from the first, that are optimized one by one")
    add("--batches", type=int, nargs="+", default=[8, 25, 64], help="numbers of facts that are optimized together")
    add("--step", type=int, default=16, help="facts of a step of the sequence")
    add("--repeats", type=int, default=3, help="how often each batch size is timed; medians are shown")
    add("--threads", type=int, default=1)
    add("--reference", type=Path, help="a checkout of the authors' MEMIT")
    add("--output", type=Path, help="write the numbers as JSON")
    return parser.parse_args()


def _say(text: str) -> None:
    Console(stderr=True).print(text, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
