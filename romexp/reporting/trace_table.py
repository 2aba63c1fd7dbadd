"""What a trace run prints: total and average indirect effects, or one prompt's highest cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from romexp.reporting.trace_averages import GROUPS, KINDS, best_layer, traced


def trace_table(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """Averages over facts; for a single fact what was predicted and where restoring helps most."""
    if len(rows) == 1 and traced(rows):
        return _single(rows[0], title)
    caption = (
        f"{summary['n']} facts traced, {summary['n_incorrect']} predicted otherwise; "
        f"ATE {_percent(summary['ate'])}, clean {_percent(summary['high'])}, corrupted {_percent(summary['low'])}"
    )
    if summary["suggested_layer"] is not None:
        caption += f"; suggested layer for editing: {summary['suggested_layer']}"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("highest average indirect effect at")
    for kind in KINDS:
        table.add_column(kind, justify="right")
        table.add_column("layer", justify="right")
    for group in GROUPS:
        cells = summary["groups"].get(group)
        if cells:
            table.add_row(group, *(text for kind in KINDS for text in _peak(cells.get(kind))))
    return table


def _peak(cell: Mapping[str, Any] | None) -> tuple[str, str]:
    if cell is None:
        return "", ""
    effect, half_width, layer = best_layer(cell)
    return f"{effect:.1%} ({half_width:.1%})", str(layer)


def _percent(statistic: Mapping[str, Any]) -> str:
    if statistic["mean"] is None:
        return "–"
    return f"{statistic['mean']:.1%} ({statistic['half_width']:.1%})"


def _single(row: Mapping[str, Any], title: str) -> Table:
    caption = (
        f"{row['prompt']} → {row['answer'].strip()}: clean {row['high_score']:.1%}, corrupted {row['low_score']:.1%}"
    )
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("token, subject starred")
    kinds = [kind for kind in KINDS if row.get(kind)]
    for kind in kinds:
        table.add_column(f"{kind}: highest p", justify="right")
        table.add_column("layer", justify="right")
    begin, end = row["subject_range"]
    for i, token in enumerate(row["tokens"]):
        cells = []
        for kind in kinds:
            values = np.array(row[kind][i], dtype=float)
            known = not np.isnan(values).all()
            cells += [f"{np.nanmax(values):.1%}", str(int(np.nanargmax(values)))] if known else ["", ""]
        table.add_row(repr(token) + ("*" if begin <= i < end else ""), *cells)
    return table
