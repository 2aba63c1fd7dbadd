"""Average effects of causal traces by token group and layer (docs/method.md §2.4; paper §2.2, Figs. 2 and 7).

The average total effect is ATE = mean(high - low). The average indirect effect is AIE = mean(restored - low). By
default each prompt gives one value, so that the interval ±1.96·s/√n applies (s has divisor n). `pooling="authors"`
averages as the authors' notebook does: each token of a group is one value, and the low score is the mean over all
prompts.

Where states are corrupted instead of restored, or another metric is read (§2.8), an effect is the change of the metric
away from that of the run whose states are replaced, positive if it goes towards that of the other run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from romexp.analysis.intervals import Z_95
from romexp.analysis.summary import statistics
from romexp.analysis.trace_settings import base_name, normalized, setting_of, setting_text, sign
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
    """The tokens of each group. A group may be empty, and two groups may be equal if the subject has only one token."""
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
    """The rows of the prompts that the model completes correctly. The others were not traced."""
    return [row for row in rows if row.get("correct_prediction")]


def trace_summary(rows: Sequence[Row], *, pooling: Pooling = "prompt") -> dict[str, Any]:
    """The averages that figures and tables show. Effects are in units of the metric; in the paper's setting these are
    probabilities in [0, 1].

    Returns:
        a mapping with
        - `n`, the number of traced prompts, and `n_incorrect`, the number of the others; `n_several_tokens`, how many
          of the traced ones have an answer of several tokens, so that their scores are those of its first token (§2.2);
        - `high`, `low`, `ate`: each {mean, half_width, std, n};
        - `groups`: {group: {kind: {mean, half_width, n}}}, where mean and half_width are lists over layers;
        - `severed`: {`ordinary`, `mlp`, `attn`: {mean, half_width, n}} at the last subject token (§2.5);
        - `peaks`: {kind: {group, layer, aie, half_width}}, the highest AIE of each kind;
        - `suggested_layer`, the layer of the highest AIE of MLPs at the last subject token (§2.7), or None;
        - `pooling`;
        - `setting`, where it is not the paper's; and if it is normalized, `n_without_scale`, the number of traced facts
          that are in no average since their total effect is too small to be a scale.

    Raises:
        ConfigError: `pooling` is unknown, or is `authors` in another setting than the paper's.
        DataError: the rows have different settings.
    """
    if pooling not in ("prompt", "authors"):
        raise ConfigError(f"pooling: {pooling!r} is neither prompt nor authors")
    correct = traced(rows)
    setting = setting_of(correct)
    if setting and pooling == "authors":
        raise ConfigError("task.pooling=authors averages as the paper does, and goes with the tracer's usual setting")
    without_scale = 0
    if setting.get("normalized"):
        correct, without_scale = normalized(correct)
    high = np.array([row["high_score"] for row in correct])
    low = np.array([row["low_score"] for row in correct])
    summary: dict[str, Any] = {
        "n": len(correct),
        "n_incorrect": len(rows) - len(correct) - without_scale,
        "n_several_tokens": sum(row.get("completion_tokens", 1) > 1 for row in correct),
        "high": statistics(high, scale=1),
        "low": statistics(low, scale=1),
        "ate": statistics(sign({**setting, "direction": "denoise"}) * (high - low), scale=1),
        "pooling": pooling,
    }
    if setting:
        summary |= {"setting": setting} | ({"n_without_scale": without_scale} if setting.get("normalized") else {})
    groups = {
        group: {kind: curve for kind in KINDS if (curve := _group_curve(correct, group, kind, pooling)) is not None}
        for group in GROUPS
    }
    summary["groups"] = {group: curves for group, curves in groups.items() if curves}
    summary["severed"] = _severed(correct)
    summary["peaks"] = _peaks(summary["groups"])
    mlp = summary["groups"].get(LAST_SUBJECT, {}).get("mlp")
    summary["suggested_layer"] = best_layer(mlp)[2] if mlp else None
    return summary


def _grid(row: Row, kind: str) -> np.ndarray | None:
    """The scores of one kind (tokens × layers), NaN for cells that were not traced. None if the whole kind was not."""
    return np.array(row[kind], dtype=float) if row.get(kind) else None


def _group_curve(rows: Sequence[Row], group: str, kind: str, pooling: Pooling) -> dict[str, Any] | None:
    """AIE of one group and kind by layer: {mean, half_width, n}. None if no prompt has traced tokens of the group."""
    per_prompt, pooled = [], []
    setting = setting_of(rows)
    direction, base = sign(setting), base_name(setting)
    for row in rows:
        grid = _grid(row, kind)
        tokens = list(group_tokens(row["subject_range"], len(row["tokens"]))[group])
        if grid is None or not tokens or np.isnan(grid[tokens]).any():
            continue
        per_prompt.append(direction * (grid[tokens].mean(axis=0) - row[base]))
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
    """AIE at the last subject token, ordinary and with severed paths (docs/method.md §2.5, paper Fig. 3)."""
    curves: dict[str, list[np.ndarray]] = {"ordinary": [], "mlp": [], "attn": []}
    direction = sign(setting_of(rows))
    for row in rows:
        grid = _grid(row, "hidden")
        if grid is None or not row.get("severed_mlp"):
            continue
        curves["ordinary"].append(direction * (grid[row["subject_range"][1] - 1] - row["low_score"]))
        for kind in ("mlp", "attn"):
            curves[kind].append(direction * (np.array(row[f"severed_{kind}"]) - row["low_score"]))
    return {name: _curve(np.stack(values)) for name, values in curves.items() if values}


def best_layer(cell: Mapping[str, Any]) -> tuple[float, float | None, int]:
    """The highest AIE of a group and kind, its half-width (None for a single prompt), and its layer.

    Args:
        cell: {mean, half_width} by layer.
    """
    layer = int(np.argmax(cell["mean"]))
    return cell["mean"][layer], cell["half_width"][layer], layer


def _peaks(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each kind, the group and layer of the highest AIE, with its half-width."""
    peaks: dict[str, dict[str, Any]] = {}
    for group, curves in groups.items():
        for kind, curve in curves.items():
            effect, half_width, layer = best_layer(curve)
            if kind not in peaks or effect > peaks[kind]["aie"]:
                peaks[kind] = {"group": group, "layer": layer, "aie": effect, "half_width": half_width}
    return peaks


def _curve(values: np.ndarray) -> dict[str, Any]:
    """Mean and half-width for each layer of values (n × layers). A single value has no half-width: None."""
    widths = (Z_95 * values.std(axis=0) / np.sqrt(len(values))).tolist()
    return {
        "mean": values.mean(axis=0).tolist(),
        "half_width": widths if len(values) > 1 else [None] * len(widths),
        "n": len(values),
    }


def flatten_trace(summary: Mapping[str, Any]) -> dict[str, float]:
    """The summary as a flat mapping for a tracker: ATE, the peaks and the suggested layer.

    In another setting than the paper's, every name begins with it (`metric=kl/ate`), so that no chart of a dashboard
    mixes them.
    """
    flat: dict[str, float] = {"n": summary["n"], "n_incorrect": summary["n_incorrect"]}
    for name in ("ate", "high", "low"):
        if summary[name]["mean"] is not None:
            flat[name] = summary[name]["mean"]
            if summary[name]["half_width"] is not None:
                flat[f"{name}_half_width"] = summary[name]["half_width"]
    for kind, peak in summary["peaks"].items():
        flat[f"peak/{kind}"] = peak["aie"]
        flat[f"peak/{kind}_layer"] = peak["layer"]
    for kind, curve in summary["groups"].get(LAST_SUBJECT, {}).items():
        flat[f"last_subject/{kind}"], _, flat[f"last_subject/{kind}_layer"] = best_layer(curve)
    if summary["suggested_layer"] is not None:
        flat["suggested_layer"] = summary["suggested_layer"]
    prefix = setting_text(summary.get("setting", {})).replace(", ", ",")
    return {f"{prefix}/{name}": value for name, value in flat.items()} if prefix else flat
