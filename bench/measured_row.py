"""One row of the overview: how it is measured, and how rows become a table."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from timing import Stopwatch, alternate, count_flops
from works import Work

from romexp.lm.model import LanguageModel
from romexp.lm.precision import matmul_precision

PRODUCT = 1024
"""Rows and columns of the square matrices whose product shows what the machine can do; eight times it on a GPU."""
BEGIN, END = "<!-- overview -->", "<!-- end of overview -->"
LEFT = ("model", "work", "unit", "")
COLUMNS = ("model", "work", "unit", "n", "CPU s", "GFLOP", "GFLOP/s", "of peak", "authors", "ratio", "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one work costs on one model. Numbers are None where they cannot be had, and `note` says why.

    Attributes:
        unit: what `seconds` and `gflop` are for.
        count: units in one run.
        seconds: processor seconds; on an accelerator those of a clock.
        gflop: 10⁹ floating-point operations of matrix products.
        peak: GFLOP per processor second of a large product, measured directly before and after.
        authors: processor seconds of the authors' code.
        memory_gb: the most memory of the accelerator that was in use.
    """

    model: str
    work: str
    unit: str = ""
    count: int = 0
    seconds: float | None = None
    gflop: float | None = None
    peak: float | None = None
    authors: float | None = None
    memory_gb: float | None = None
    note: str = ""

    @property
    def speed(self) -> float | None:
        """GFLOP per processor second."""
        return self.gflop / self.seconds if self.gflop and self.seconds else None


def measured(model: str, name: str, work: Work, *, lm: LanguageModel, repeats: int) -> Row:
    """Count the arithmetic in a first run, and then time the work, with that of the authors in turn."""
    with matmul_precision(lm.matmul_precision):
        return _measured(model, name, work, lm=lm, repeats=repeats)


def _measured(model: str, name: str, work: Work, *, lm: LanguageModel, repeats: int) -> Row:
    device = lm.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    flops = count_flops(work.run)
    runs = {"ours": work.run} | ({} if work.authors is None else {"authors": work.authors})

    def timed(run: Any, watch: Stopwatch) -> None:
        with watch("run"):
            run()

    before = peak(device, lm.dtype)
    variants = {who: partial(timed, run) for who, run in runs.items()}
    _, laps = alternate(variants, repeats=repeats, device=device, say=lambda text: None)
    each = {who: lap["processor" if device.type == "cpu" else "total"] / work.count for who, lap in laps.items()}
    return Row(
        model=model,
        work=name,
        unit=work.unit,
        count=work.count,
        seconds=each["ours"],
        gflop=flops / work.count / 1e9,
        peak=(before + peak(device, lm.dtype)) / 2,
        authors=each.get("authors"),
        memory_gb=torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None,
        note=work.note,
    )


@torch.no_grad()
def peak(device: torch.device, dtype: torch.dtype, *, at_least_s: float = 0.3) -> float:
    """GFLOP per processor second of a product of two large matrices; on an accelerator, per second."""
    width = PRODUCT if device.type == "cpu" else 8 * PRODUCT
    a, b = (torch.full((width, width), value, device=device, dtype=dtype) for value in (0.5, 0.25))
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    a @ b
    _finish(device)
    count, begun = 0, clock()
    while clock() - begun < at_least_s:
        for _ in range(4):
            a @ b
        _finish(device)
        count += 4
    return 2 * width**3 * count / (clock() - begun) / 1e9


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def notes_of(rows: Sequence[Row]) -> list[str]:
    """The different notes, in order of appearance. Rows name them by their number."""
    return list(dict.fromkeys(row.note for row in rows if row.note))


def cells(row: Row, notes: Sequence[str]) -> list[str]:
    """The row as texts, in the order of `COLUMNS`."""

    def shown(value: float | None, form: str) -> str:
        if value is None:
            return "–"
        return f"{value:,.0f}" if value >= 1000 else format(value, form)

    share = row.speed / row.peak if row.speed and row.peak else None
    ratio = row.seconds / row.authors if row.seconds and row.authors else None
    numbers = [shown(row.seconds, ".3g"), shown(row.gflop, ".3g"), shown(row.speed, ".0f"), shown(share, ".0%")]
    theirs = [shown(row.authors, ".3g"), shown(ratio, ".2f")]
    note = f"({notes.index(row.note) + 1})" if row.note else ""
    return [row.model, row.work, row.unit, str(row.count or "–"), *numbers, *theirs, note]


def caption(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """On what the numbers were measured, and the notes."""
    peaks = sorted(row.peak for row in rows if row.peak)
    span = f"; a product of large square matrices: {peaks[0]:.0f} to {peaks[-1]:.0f} GFLOP/s" if peaks else ""
    where = ", ".join(about["accelerators"]) or f"{about['cpu']}, {about['threads']} threads"
    return (
        f"{str(about['date'])[:10]}, {where}, load {about['load_before']:.1f}, torch {about['torch']}, "
        f"OMP_WAIT_POLICY={about['wait_policy']}. Processor seconds and GFLOP are for one unit; n units were run "
        f"together{span}."
    )


def table(rows: Sequence[Row], about: Mapping[str, Any]) -> Table:
    """The table for the terminal."""
    notes = notes_of(rows)
    below = "\n".join([caption(rows, about), *(f"({i}) {note}" for i, note in enumerate(notes, start=1))])
    result = Table(title="What each work costs", caption=below, title_justify="left", caption_justify="left")
    for name in COLUMNS:
        result.add_column(name, justify="left" if name in LEFT else "right")
    for row in rows:
        result.add_row(*cells(row, notes))
    return result


def markdown(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """The table in Markdown, between its caption and the notes."""
    notes = notes_of(rows)
    lines = [caption(rows, about), "", f"| {' | '.join(COLUMNS)} |"]
    lines.append("|" + "|".join("---" if name in LEFT else "---:" for name in COLUMNS) + "|")
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in cells(row, notes))} |" for row in rows]
    lines += ["", *(f"({i}) {note}  " for i, note in enumerate(notes, start=1))] if notes else []
    return "\n".join(lines)


def write_section(file: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Replace what stands between the marks in a Markdown file; without them, append it at the end."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    section = f"{BEGIN}\n\n{markdown(rows, about)}\n\n{END}"
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    found = pattern.search(text)
    new = text[: found.start()] + section + text[found.end() :] if found else f"{text.rstrip()}\n\n{section}\n".lstrip()
    file.write_text(new, encoding="utf-8")
