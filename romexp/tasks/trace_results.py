"""The summary and the figures of a trace (docs/method.md §11.2)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from matplotlib.figure import Figure

from romexp.analysis.traces import Pooling, trace_summary, traced
from romexp.errors import DataError
from romexp.reporting.figures import traces as figures
from romexp.results.folder import RunFolder
from romexp.results.rows import Row
from romexp.results.trace_rows import trace_row_fault


def kept_summary(folder: RunFolder, *, pooling: Pooling) -> dict[str, Any] | None:
    """The summary of a finished run; None if it is missing, or is not what its rows give."""
    with suppress(DataError):
        summary = folder.read("summary")
        # Averages are quick to make, so they are compared as a whole; as texts, in which NaN equals NaN.
        made = trace_summary(folder.good_rows(trace_row_fault), pooling=pooling)
        if json.dumps(summary, sort_keys=True) == json.dumps(made, sort_keys=True):
            return summary
    return None


def trace_drawings(
    rows: Sequence[Row],
    summary: Mapping[str, Any],
    *,
    window: int,
    model: str,
    heatmaps: int,
    averages: bool,
) -> Iterator[tuple[str, Figure]]:
    """Names and figures of what the results can show.

    Args:
        window: number of layers that are restored together for MLPs and attention.
        heatmaps: number of facts, from the first one, that have figures of their own.
        averages: whether averages over facts are drawn.
    """
    drawn: dict[str, Figure | None] = {}
    for row in traced(rows)[:heatmaps]:
        drawn[f"trace_{row['case_id']}"] = figures.prompt_heatmap(row, window=window, model=model)
        drawn[f"gradients_{row['case_id']}"] = figures.prompt_gradients(row, model=model)
    if averages and summary["groups"]:
        drawn["average_heatmaps"] = figures.average_heatmaps(summary, window=window, model=model)
        drawn["average_lines"] = figures.average_lines(summary, window=window, model=model)
        drawn["severed"] = figures.severed_bars(summary, model=model)
    return ((name, figure) for name, figure in drawn.items() if figure is not None)
