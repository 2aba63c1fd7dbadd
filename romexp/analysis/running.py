"""Means of the cases that are finished so far, for trackers: after the last case they are those of the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from romexp.analysis.lifelong import statistics_of
from romexp.analysis.summary import frame_of_records, summarize_frame


def running_means(records: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, float]]:
    """The number of cases, and the means under the tables' names: `pre/S`, `post/ES`, …, scores × 100.

    Args:
        records: what `analysis.summary.case_record` made of the cases, in any order.

    Returns:
        A mean that not all cases have is followed by the number of its own: `post/RS_n`.
    """
    summary = summarize_frame(frame_of_records(records), intervals=False)
    count = int(summary["n_cases"])
    return count, _flat({side: summary[side] for side in ("pre", "post")}, count)


def running_sequence(seen: pd.DataFrame, now: pd.DataFrame | None, *, edits: int) -> dict[str, float]:
    """Means of a sequence of edits so far: `pre/…`, `immediate/…` and `final/…` as in its summary.

    Args:
        seen: for each case the first row of `analysis.lifelong.lifelong_frame`, in the order of measuring.
        now: the rows of all cases edited so far, measured after the last of the edits; None if they were not measured.
        edits: number of edits. A mean over another number of cases is followed by that, as `final/ES_n`.
    """
    immediate = seen[seen["edited_at"] == seen["measured_at"]]
    parts = {"pre": statistics_of(seen, "pre", intervals=False)}
    parts |= {"immediate": statistics_of(immediate, "post", intervals=False)} if len(immediate) else {}
    parts |= {"final": statistics_of(now, "post", intervals=False)} if now is not None else {}
    return _flat(parts, edits)


def _flat(parts: Mapping[str, Mapping[str, Mapping[str, Any]]], count: int) -> dict[str, float]:
    flat: dict[str, float] = {}
    for part, metrics in parts.items():
        for name, entry in metrics.items():
            flat[f"{part}/{name}"] = entry["mean"]
            if entry["n"] != count:
                flat[f"{part}/{name}_n"] = entry["n"]
    return flat
