"""Average effects of causal traces by token group and layer, from rows alone
(docs/method.md §2.4, paper Fig. 2, Fig. 7).

ATE = mean(high - low). AIE of a cell = mean(restored - low). Every number is a mean of one value a prompt, so that the
interval ±1.96·s/√n (s with ddof 0, as for all metrics) belongs to it; `pooling="authors"` is the published notebook's:
every token of a group counts by itself, and the low score is the mean over all prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from romexp.analysis.summary import Z_95, statistics
from romexp.errors import ConfigError

Row = Mapping[str, Any]
Pooling = Literal["prompt", "authors"]

KINDS = ("hidden", "mlp", "attn")
GROUPS = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first subsequent token",
    "further tokens",
    "last token",
)
LAST_SUBJECT = GROUPS[2]


def group_tokens(subject_range: Sequence[int], n_tokens: int) -> dict[str, range]:
    """Tokens of each group; groups of one prompt may coincide (a subject of one token) or be empty."""
    begin, end = subject_range
    return {
        "first subject token": range(begin, begin + 1),
        "middle subject tokens": range(begin + 1, end - 1),
        "last subject token": range(end - 1, end),
        "first subsequent token": range(end, min(end + 1, n_tokens)),
        "further tokens": range(end + 1, n_tokens - 1),
        "last token": range(n_tokens - 1, n_tokens),
    }


def traced(rows: Sequence[Row]) -> list[Row]:
    """Rows of prompts that the model completes correctly: the others were not traced."""
    return [row for row in rows if row.get("correct_prediction")]


def trace_summary(rows: Sequence[Row], *, pooling: Pooling = "prompt") -> dict[str, Any]:
    """Everything that the figures and tables show.

    Returns:
        `n` prompts traced, `n_incorrect` left out, `high`, `low`, `ate` as {mean, half_width, std, n}; `groups` → group
        → kind → {mean, half_width: [layers], n}; `severed` → ordinary, mlp, attn → the same for the last subject token;
        `peaks` → kind → {group, layer, aie, half_width}; `suggested_layer`, where MLPs at the last subject token matter
        most.

    Raises:
        ConfigError: an unknown pooling.
    """
    if pooling not in ("prompt", "authors"):
        raise ConfigError(f"pooling: {pooling!r} is none of prompt, authors")
    chosen = traced(rows)
    high = np.array([row["high_score"] for row in chosen])
    low = np.array([row["low_score"] for row in chosen])
    summary: dict[str, Any] = {
        "n": len(chosen),
        "n_incorrect": len(rows) - len(chosen),
        "high": statistics(high, scale=1),
        "low": statistics(low, scale=1),
        "ate": statistics(high - low, scale=1),
        "pooling": pooling,
    }
    groups = {
        group: {kind: cell for kind in KINDS if (cell := _cell(chosen, group, kind, pooling)) is not None}
        for group in GROUPS
    }
    summary["groups"] = {group: cells for group, cells in groups.items() if cells}
    summary["severed"] = _severed(chosen)
    summary["peaks"] = _peaks(summary["groups"])
    mlp = summary["groups"].get(LAST_SUBJECT, {}).get("mlp")
    summary["suggested_layer"] = best_layer(mlp)[2] if mlp else None
    return summary


def _grid(row: Row, kind: str) -> np.ndarray | None:
    """(tokens × layers), NaN where a cell was not asked for; None if the kind was not traced."""
    return np.array(row[kind], dtype=float) if row.get(kind) else None


def _cell(rows: Sequence[Row], group: str, kind: str, pooling: Pooling) -> dict[str, Any] | None:
    per_prompt, pooled = [], []
    for row in rows:
        grid = _grid(row, kind)
        tokens = list(group_tokens(row["subject_range"], len(row["tokens"]))[group])
        if grid is None or not tokens or np.isnan(grid[tokens]).any():
            continue
        per_prompt.append(grid[tokens].mean(axis=0) - row["low_score"])
        pooled.append(grid[tokens])
    if not per_prompt:
        return None
    if pooling == "prompt":
        return _curve(np.stack(per_prompt))
    values = np.concatenate(pooled)
    curve = _curve(values)
    curve["mean"] = (values.mean(axis=0) - np.mean([row["low_score"] for row in rows])).tolist()
    return curve


def _severed(rows: Sequence[Row]) -> dict[str, Any]:
    """Fig. 3: the ordinary curve at the last subject token and the two severed ones, minus the ordinary low score."""
    curves: dict[str, list[np.ndarray]] = {"ordinary": [], "mlp": [], "attn": []}
    for row in rows:
        grid = _grid(row, "hidden")
        if grid is None or not row.get("severed_mlp"):
            continue
        curves["ordinary"].append(grid[row["subject_range"][1] - 1] - row["low_score"])
        for kind in ("mlp", "attn"):
            curves[kind].append(np.array(row[f"severed_{kind}"]) - row["low_score"])
    return {name: _curve(np.stack(values)) for name, values in curves.items() if values}


def best_layer(cell: Mapping[str, Any]) -> tuple[float, float, int]:
    """Highest average indirect effect of a group and kind, its half-width, its layer."""
    layer = int(np.argmax(cell["mean"]))
    return cell["mean"][layer], cell["half_width"][layer], layer


def _peaks(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each kind the group and layer with the largest average effect, with its interval."""
    peaks: dict[str, dict[str, Any]] = {}
    for group, cells in groups.items():
        for kind, cell in cells.items():
            effect, half_width, layer = best_layer(cell)
            if kind not in peaks or effect > peaks[kind]["aie"]:
                peaks[kind] = {"group": group, "layer": layer, "aie": effect, "half_width": half_width}
    return peaks


def _curve(values: np.ndarray) -> dict[str, Any]:
    """Mean and half-width by layer of (n × layers)."""
    return {
        "mean": values.mean(axis=0).tolist(),
        "half_width": (Z_95 * values.std(axis=0) / np.sqrt(len(values))).tolist(),
        "n": len(values),
    }


def flatten_trace(summary: Mapping[str, Any]) -> dict[str, float]:
    """Single numbers for a tracker's summary: ATE, the peaks and the suggested layer."""
    flat: dict[str, float] = {"n": summary["n"], "n_incorrect": summary["n_incorrect"]}
    for name in ("ate", "high", "low"):
        if summary[name]["mean"] is not None:
            flat[name] = summary[name]["mean"]
            flat[f"{name}_half_width"] = summary[name]["half_width"]
    for kind, peak in summary["peaks"].items():
        flat[f"peak/{kind}"] = peak["aie"]
        flat[f"peak/{kind}_layer"] = peak["layer"]
    for kind, cell in summary["groups"].get(LAST_SUBJECT, {}).items():
        flat[f"last_subject/{kind}"], _, flat[f"last_subject/{kind}_layer"] = best_layer(cell)
    if summary["suggested_layer"] is not None:
        flat["suggested_layer"] = summary["suggested_layer"]
    return flat
