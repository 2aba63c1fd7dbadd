"""Measures how long edits and their metrics take, on the same records in each of four variants: our package with
batches, our package with one record at a time, the plainest code, and the authors' code. It also compares their
results. See README.md beside this file.

    python bench/edit.py --records 20 --repeats 3 --generation
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ours
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from plain import plain
from reference import authors
from report import REFERENCE, Row, edit_differences, environment, rows, same_texts, table
from rich.console import Console
from timing import Stopwatch, alternate
from workload import SEED, Variant, Workload

from romexp.__main__ import CONFIG
from romexp.data.counterfact import CounterFact
from romexp.editors.contexts import context_templates
from romexp.editors.finetune import FineTune
from romexp.editors.rome.editor import Rome
from romexp.errors import ConfigError, RomexpError
from romexp.lm.model import LanguageModel, PretrainedModel, resolve_device
from romexp.lm.sampling import Sampler
from romexp.minifact import assets
from romexp.stats.covariance import Covariance
from romexp.stats.second_moment import SecondMoment, load_moments

TOLERANCE = {"u": 1e-3, "right": 1e-3, "weight": 1e-3, "bias": 1e-3, "nll": 1e-3}
"""Largest allowed differences between our variants: relative ones of u and Λ' (ROME) or of the dense change (FT), and
absolute ones of NLLs in nats."""
EDITORS = ("rome", "ft", "ft_l")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, 1 if results of our variants differ, or 2 for a mistake of the user."""
    options = _options(arguments)
    try:
        report = measure(options)
    except RomexpError as error:
        _say(f"error: {error}")
        return 2
    if options.output == "json":
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        console = Console(width=None if sys.stdout.isatty() else 150)
        console.print(table(report["rows"], title=report["title"], caption=report["caption"]))
    for failure in report["failures"]:
        _say(f"NOT EQUAL: {failure}")
    return 1 if report["failures"] else 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all variants, and return everything that is printed as JSON-ready values.

    Raises:
        RomexpError: a model, a file or an option cannot be used.
    """
    devices = [resolve_device(device) for device in options.device]
    about = environment(devices)
    all_rows: list[Row] = []
    for device in devices:
        work = _workload(options, device)
        _say(f"{len(work.cases)} records, {work.editor.name} at layer {work.layer} of {work.lm.name} on {device}")
        all_rows += _measure_on(work, options)
    failures = [] if options.dtype not in ("float32", "float64") else _failures(all_rows)
    editor = all_rows[0]["editor"]
    few = f" ({options.single_records} where it is not batched)" if options.single_records else ""
    return {
        "title": f"{editor} on {all_rows[0]['model']}, {options.records} records{few}, median of {options.repeats}",
        "caption": (
            "Seconds per record; × x: how many times faster than variant x. "
            f"Differs by: largest difference from {REFERENCE!r}, relative for u, Λ and ΔW, in nats for NLLs.\n"
            f"{about['date']}, {about['cpu']}, {about['threads']} threads, load {about['load_before']:.1f}, "
            f"torch {about['torch']}, transformers {about['transformers']}, {', '.join(about['accelerators']) or 'CPU'}"
        ),
        "environment": about,
        "rows": all_rows,
        "failures": failures,
    }


def _measure_on(work: Workload, options: argparse.Namespace) -> list[Row]:
    variants = _variants(work, options)
    few = work.first(options.single_records or len(work.cases))
    works = {v.name: work if v.name == REFERENCE else few for v in variants}
    records = {name: len(mine.cases) for name, mine in works.items()}
    device = work.lm.device
    for variant in variants:  # the first call, which fills caches and loads kernels, is not measured
        warm = variant.edit(work.first(1), Stopwatch(device))
        if options.generation and variant.generate:
            variant.generate(work.first(1), warm.deltas, Stopwatch(device))
    edits = {v.name: partial(v.edit, works[v.name]) for v in variants}
    edited, laps = alternate(edits, repeats=options.repeats, device=device, say=_say)
    base = edited[REFERENCE]
    differences: dict[str, dict[str, float]] = {name: edit_differences(mine, base) for name, mine in edited.items()}
    measured = rows("edits", str(device), laps, records, differences)
    if options.generation:
        generators = {
            v.name: partial(v.generate, works[v.name], base.deltas[: records[v.name]]) for v in variants if v.generate
        }
        texts, laps = alternate(generators, repeats=options.repeats, device=device, say=_say)
        comparable = [v.name for v in variants if v.ours and v.name in texts]
        differences = {name: same_texts(texts[name], texts[REFERENCE]) for name in comparable}
        measured += rows("generation", str(device), laps, records, differences)
    is_ours = {v.name: v.ours for v in variants}
    about = {"editor": work.editor.name, "model": work.lm.name, "layer": work.layer}
    return [{**row, **about, "ours": is_ours[row["variant"]]} for row in measured]


def _failures(all_rows: Sequence[Row]) -> list[str]:
    """One line for each of our results that differs from `batched` by more than `TOLERANCE`."""
    return [
        f"{row['variant']} on {row['device']}: {key} differs by {row['differences'][key]:.1e}, at most {limit:.0e}"
        for row in all_rows
        if row["ours"]
        for key, limit in TOLERANCE.items()
        if not row["differences"].get(key, 0.0) <= limit
    ]


def _variants(work: Workload, options: argparse.Namespace) -> list[Variant]:
    variants = [ours.batched(options.batch), ours.single()]
    if not options.no_plain:
        variants.append(plain())
    if options.reference is not None:
        variants.append(authors(options.reference, work, path=_model_path(options)))
    return variants


def _workload(options: argparse.Namespace, device: torch.device) -> Workload:
    lm = PretrainedModel(path=_model_path(options), dtype=options.dtype, device=str(device)).load()
    cases = CounterFact(path=options.data or assets.counterfact_path(), limit=options.records).load().items
    if len(cases) < options.records:
        raise ConfigError(f"--records: {options.records} are wanted, but only {len(cases)} of the data set can be used")
    editor = _editor(options.editor)
    layer = editor.layer if options.layer is None else options.layer
    templates: tuple[str, ...] = ("{}",)
    if isinstance(editor, Rome):
        given = str(options.contexts) if options.contexts else None
        lengths = editor.context_template_length_params
        templates = context_templates(lm, given=given, length_counts=lengths, seed=SEED, cache_dir=None)
        without = options.covariance == "none"
        editor = replace(editor, layer=layer, context_templates=templates, mom2_adjustment=not without)
    else:
        editor = replace(editor, layer=layer)
    assert isinstance(layer, int)
    needs = isinstance(editor, Rome) and editor.mom2_adjustment
    moment = _second_moment(lm, options.covariance, layer) if needs else None
    sampler = Sampler(max_length=options.max_length)
    return Workload(lm=lm, cases=cases, editor=editor, templates=templates, moment=moment, sampler=sampler)


def _editor(name: str) -> Rome | FineTune:
    """The editor that `editor=<name> model=minifact` composes to."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG.resolve())):
        editor: Rome | FineTune = instantiate(compose("config", overrides=[f"editor={name}", "model=minifact"]).editor)
    return editor


def _model_path(options: argparse.Namespace) -> str:
    return str(options.model or assets.model_dir())


def _second_moment(lm: LanguageModel, path: str | None, layer: int) -> SecondMoment:
    if path is None:
        return load_moments(assets.second_moments_path(), [layer])[layer]
    return Covariance(path=path).moments(lm, [layer])[layer]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--records", type=_positive, default=20, help="how many records")
    add("--repeats", type=_positive, default=3, help="how often each variant runs; medians are printed")
    add("--editor", choices=EDITORS, default="rome")
    add("--layer", type=int, help="edited layer, 0-based; minifact's by default")
    add("--batch", type=_positive, default=50, help="number of records in a batch of 'batched'")
    add(
        "--single-records",
        type=_positive,
        help="number of records, from the first, for the variants other than 'batched'",
    )
    add("--device", nargs="+", default=["auto"], help="auto, cpu, cuda, …; each device gets its own rows")
    add("--dtype", default="float32", help="the model's; results must be equal only in float32 and float64")
    add("--model", help="model folder or hub id; the shipped minifact by default")
    add("--data", help="records in CounterFact's schema; minifact's by default")
    add("--contexts", type=Path, help="JSON list of context templates; sampled from the model by default")
    add("--covariance", help="file of the layer's second moment, or 'none' to use none; minifact's by default")
    add("--generation", action="store_true", help="also time the texts of each record's generation prompts")
    add("--max-length", type=_positive, default=100, help="tokens of a text, the prompt included")
    add("--no-plain", action="store_true", help="leave out the plain variant, the slowest of ours")
    add("--reference", type=Path, help="a checkout of the authors' code, see README.md")
    add("--output", choices=["table", "json"], default="table")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
