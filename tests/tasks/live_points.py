"""Reads the points that a run has sent to `tracker=csv`."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from romexp.results.folder import RunFolder


def metrics(folder: Path) -> pd.DataFrame:
    """The curves, to the last digit, which pandas' own reader does not promise; NaN where a point lacks a value."""
    with (folder / "csv" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        points = [{name: float(cell or "nan") for name, cell in row.items()} for row in csv.DictReader(file)]
    return pd.DataFrame(points)


def means(folder: Path, *parts: str) -> dict[str, float]:
    """The means of a run's summary under the names that a tracker gets."""
    summary = RunFolder(folder).read("summary") or {}
    return {f"{part}/{name}": entry["mean"] for part in parts for name, entry in summary[part].items()}
