"""One table of what every work costs on several models: processor seconds, arithmetic, and the share of what this
machine can do at most. `make bench` runs it.

    python bench/overview.py
    python bench/overview.py --models minifact --work edit trace --records 20
    python bench/overview.py --reference /somewhere/rome --results bench/RESULTS.md

Seconds are processor seconds of all threads: they grow much less than those of a clock if others use the machine. FLOPs
are those of matrix products, counted by torch in a first run, which also fills caches. Directly before and after each
row the speed of a large float32 product is measured in the same way; the share is of their mean. Where a row cannot be
run, it says why. What is measured so far is always in `--output`.
"""

from __future__ import annotations

import os

# As the command line sets it, and before torch reads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from measured_row import Row, measured, table, write_section
from models import MODELS, PRECISIONS, USUAL, BenchModel
from report import environment
from report_scale import measure, write_run
from rich.console import Console
from works import WORKS, Sizes

from romexp.lm.model import resolve_device

REPORT = "report"
REPORT_RUNS, REPORT_CASES = 10, 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every row and print the table. Rows that cannot be run say why; the exit status is 0 all the same."""
    options = _options(arguments)
    device = resolve_device(options.device)
    about = environment([device]) | {"wait_policy": os.environ["OMP_WAIT_POLICY"], "sizes": asdict(_sizes(options))}
    rows: list[Row] = []

    def keep(row: Row) -> None:
        rows.append(row)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({"environment": about, "rows": [asdict(r) for r in rows]}, indent=1))
        _say(f"{row.model}, {row.work}: " + (f"{row.seconds:.3g} s a {row.unit}" if row.seconds else row.note))

    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            for precision in options.precision:
                _rows_of(name, precision, options, str(device), Path(folder), keep)
        if REPORT in options.work:
            keep(_report(Path(folder)))
    shown = table(rows, about)
    Console(width=None if sys.stdout.isatty() else 120).print(shown)
    if options.results:
        write_section(options.results, rows, about)
    return 0


def _rows_of(
    name: str, precision: str, options: argparse.Namespace, device: str, folder: Path, keep: Callable[[Row], None]
) -> None:
    """Measure each work on one model. A model or a work that cannot be had makes rows that say so."""
    chosen, shown = [work for work in options.work if work != REPORT], name
    if precision != "highest":
        shown = f"{name}, {precision}"
    try:
        model: BenchModel = MODELS[name](device, folder, PRECISIONS[precision])
    except Exception as error:  # Whatever it is, the other models can be measured.
        for work in chosen:
            keep(Row(model=shown, work=work, note=_reason(error)))
        return
    for work in chosen:
        try:
            made = WORKS[work](model, _sizes(options), options.reference)
            keep(measured(shown, work, made, lm=model.lm, repeats=options.repeats))
        except Exception as error:
            keep(Row(model=shown, work=work, note=_reason(error)))


def _report(folder: Path) -> Row:
    """`task=report` with its page, over made-up runs, in a process of its own."""
    for number in range(REPORT_RUNS):
        write_run(folder / "study" / str(number), number=number, cases=REPORT_CASES, texts=0)
    found = measure(folder / "study", folder / "report")
    size = f"{REPORT_RUNS} runs of {REPORT_CASES} cases"
    return Row(model="any", work=REPORT, unit=size, count=1, seconds=found["processor_seconds"])


def _sizes(options: argparse.Namespace) -> Sizes:
    return Sizes(**{field.name: getattr(options, field.name) for field in fields(Sizes)})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, usual = parser.add_argument, Sizes()
    add("--models", nargs="+", choices=list(MODELS), default=list(USUAL))
    add("--precision", nargs="+", choices=list(PRECISIONS), default=["highest"], help="each model in each of these")
    add("--work", nargs="+", choices=[*WORKS, REPORT], default=[*WORKS, REPORT])
    add("--records", type=int, default=usual.records, help="records that are edited in one batch")
    add("--facts", type=int, default=usual.facts, help="facts that are traced")
    add("--samples", type=int, default=usual.samples, help="noise samples of a trace")
    add("--text-tokens", type=int, default=usual.text_tokens, help="tokens of a text, the prompt included")
    add("--moment-tokens", type=int, default=usual.moment_tokens, help="tokens of a second moment")
    add("--repeats", type=int, default=1, help="how often each work is timed; medians are shown")
    add("--device", default="cpu")
    add("--reference", type=Path, help="a checkout of the authors' code, see README.md")
    add("--output", type=Path, default=Path("build/bench.json"), help="the rows so far, as JSON")
    add("--results", type=Path, help="a Markdown file whose section between <!-- overview --> marks is replaced")
    return parser.parse_args(arguments)


def _reason(error: Exception) -> str:
    """One line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return f"not run: {said[:200]}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
