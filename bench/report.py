"""Makes rows from measurements (medians, ratios, differences of results), and a table from rows."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.table import Table
from workload import Edited

from romexp import __version__
from romexp.lm.weight_delta import LowRank, WeightDelta

Row = dict[str, Any]
REFERENCE = "batched"
"""The variant with which the others are compared."""


def rows(
    task: str,
    device: str,
    laps: Mapping[str, Mapping[str, float]],
    records: Mapping[str, int],
    differences: Mapping[str, Mapping[str, float]],
) -> list[Row]:
    """One row for each variant. `times_faster[x]` is x's seconds per record divided by this variant's.

    Args:
        laps: median seconds by variant (see `timing.Stopwatch.lap`).
        records: number of records by variant.
        differences: results of `edit_differences` or `same_texts` by variant.
    """
    each = {name: {part: value / records[name] for part, value in lap.items()} for name, lap in laps.items()}
    return [
        {
            "task": task,
            "device": device,
            "variant": name,
            "records": records[name],
            "seconds_per_record": mine["total"],
            "processor_seconds_per_record": mine["processor"],
            "phases": {part: value for part, value in mine.items() if part not in ("total", "processor")},
            "records_per_second": 1 / mine["total"],
            "times_faster": {other: each[other]["total"] / mine["total"] for other in laps if other != name},
            "differences": dict(differences.get(name, {})),
        }
        for name, mine in each.items()
    ]


def edit_differences(mine: Edited, reference: Edited) -> dict[str, float]:
    """Largest differences over the records that both have.

    Differences of u and Λ' (or of a dense change) are relative, in the L2 norm; those of NLLs are absolute, in nats.
    """
    out: dict[str, float] = {}
    for a, b in zip(mine.deltas, reference.deltas):
        for key, value in _delta_differences(a, b).items():
            out[key] = max(out.get(key, 0.0), value)
    pairs = [(x, y) for a, b in zip(mine.nlls, reference.nlls) for x, y in zip(a, b, strict=True)]
    out["nll"] = max((abs(x - y) for x, y in pairs), default=0.0)
    return out


def _delta_differences(a: WeightDelta, b: WeightDelta) -> dict[str, float]:
    out: dict[str, float] = {}
    for name, term in b.terms.items():
        other = a.terms[name]
        if isinstance(term, LowRank) and isinstance(other, LowRank):
            sides = {"u": (other.left, term.left), "right": (other.right, term.right)}
        else:
            sides = {name.rpartition(".")[2]: (other.dense(), term.dense())}
        for key, (x, y) in sides.items():
            out[key] = float((x - y).double().norm() / y.double().norm())
    return out


def same_texts(mine: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of texts that are exactly equal, over the records that both have."""
    pairs = [(x, y) for a, b in zip(mine, reference) for x, y in zip(a, b, strict=True)]
    return {"same_texts": sum(x == y for x, y in pairs) / len(pairs)}


def environment(devices: Sequence[torch.device]) -> Row:
    """What the times depend on besides the code: machine, load and versions."""
    names = [torch.cuda.get_device_name(d) for d in devices if d.type == "cuda"]
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "accelerators": names,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "romexp": __version__,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()


def table(all_rows: Sequence[Row], *, title: str, caption: str) -> Table:
    """All rows in one table. A column `× x` tells how many times faster a variant is than variant x."""
    variants = list(dict.fromkeys(row["variant"] for row in all_rows))
    with_device = len({row["device"] for row in all_rows}) > 1
    result = Table(title=title, caption=caption, caption_justify="left", title_justify="left")
    for name in ["task", *(["device"] if with_device else []), "variant"]:
        result.add_column(name)
    for name in ["s", "editing", "CPU s", "records/s", *(f"× {v}" for v in variants)]:
        result.add_column(name, justify="right")
    result.add_column("differs by", no_wrap=True)
    for index, row in enumerate(all_rows):
        device = [row["device"]] if with_device else []
        result.add_row(row["task"], *device, row["variant"], *_numbers(row), *_ratios(row, variants), _differences(row))
        after = all_rows[index + 1] if index + 1 < len(all_rows) else row
        if (after["task"], after["device"]) != (row["task"], row["device"]):
            result.add_section()
    return result


def _numbers(row: Row) -> list[str]:
    editing = f"{row['phases']['edit']:.3g}" if "edit" in row["phases"] else ""
    values = [row[key] for key in ("processor_seconds_per_record", "records_per_second")]
    return [f"{row['seconds_per_record']:.3g}", editing, *(f"{value:.3g}" for value in values)]


def _ratios(row: Row, variants: Sequence[str]) -> list[str]:
    return [f"{row['times_faster'][v]:.1f}" if v in row["times_faster"] else "" for v in variants]


def _differences(row: Row) -> str:
    if row["variant"] == REFERENCE:
        return "–"
    names = {"right": "Λ", "nll": "NLL", "weight": "ΔW", "bias": "Δb"}
    parts = []
    for key, value in row["differences"].items():
        parts.append(f"{value:.0%} same texts" if key == "same_texts" else f"{names.get(key, key)} {value:.0e}")
    return "  ".join(parts)
