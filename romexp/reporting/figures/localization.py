"""Figures of a study of localization: edit success against what tracing restores, and how much each explains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from romexp.reporting.figures.style import add_title, color, editor_color
from romexp.reporting.tables.localization import OBJECTIVE_TITLES

MOST_LAYERS = 9
"""Most layers that the figure of single facts has columns for; of more layers it shows as many, evenly spaced."""


def success_against_tracing(frame: pd.DataFrame, method: str, *, label: str, outcome: str, model: str) -> Figure:
    """Each dot is an edit of one fact: its score over the fraction that tracing restores at the edited layer. One
    column of panels for each layer and one row for each objective, with the straight line of least squares.

    Args:
        frame: see `romexp.analysis.edit_scores.score_frame`.
        label: the method's name.
    """
    own = frame[frame["method"] == method].dropna(subset=[outcome])
    objectives = [name for name in OBJECTIVE_TITLES if name in set(own["objective"])]
    layers = sorted(set(own["layer"]))
    if len(layers) > MOST_LAYERS:
        layers = [layers[i] for i in np.linspace(0, len(layers) - 1, MOST_LAYERS).round().astype(int)]
    rows, columns = max(1, len(objectives)), max(1, len(layers))
    figure = Figure(figsize=(1.25 * columns + 1.2, 1.25 * rows + 1.3), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for objective, line in zip(objectives, panels, strict=False):
        for layer, axes in zip(layers, line, strict=False):
            part = own[(own["objective"] == objective) & (own["layer"] == layer)]
            _dots(axes, part["fraction"].to_numpy(), part[outcome].to_numpy(), editor_color(method))
        line[0].set_ylabel(OBJECTIVE_TITLES[objective], fontsize=8)
    for layer, axes in zip(layers, panels[0], strict=False):
        axes.set_title(f"layer {layer}", fontsize=8)
    figure.supxlabel("fraction restored by tracing at the layer of the edit", fontsize=9)
    figure.supylabel(f"{outcome} score of the edit", fontsize=9)
    facts = own["case_id"].nunique()
    return add_title(figure, f"Edit success and tracing: {label} on {model}, {facts} facts, lines are least squares")


def explained_shares(summary: Mapping[str, Any], *, outcome: str, labels: Mapping[str, str], model: str) -> Figure:
    """How much of the variance of edit success the layer explains, and how much tracing adds.

    Args:
        labels: names of the methods.
    """
    studies = [s for s in summary["studies"] if s["outcome"] == outcome and s["r2_layer"] is not None]
    figure = Figure(figsize=(7.0, 0.26 * max(1, len(studies)) + 1.5), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(studies))
    layer = np.array([study["r2_layer"] for study in studies], dtype=float)
    gain = np.array([study["gain"] or 0.0 for study in studies], dtype=float)
    chance = np.array([study["chance_gain"] or 0.0 for study in studies], dtype=float)
    axes.barh(places, layer, 0.7, color=color(5), label="layer alone")
    axes.barh(places, gain, 0.7, left=layer, color=color(1), label="added by tracing")
    axes.plot(layer + chance, places, "|", color="black", markersize=9, label="as noise would add")
    axes.set_yticks(
        places,
        [f"{labels.get(s['method'], s['method'])}, {OBJECTIVE_TITLES[s['objective']]}" for s in studies],
        fontsize=8,
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"share of the variance of the {outcome} score (R²)", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return add_title(figure, f"What explains edit success: {model}, {summary['n_known']} facts")


def layers_compared(summary: Mapping[str, Any], *, outcome: str, labels: Mapping[str, str], model: str) -> Figure:
    """By layer, the mean score of each method's edits beside the mean fraction that tracing restores: one panel for
    each objective.
    """
    studies = [s for s in summary["studies"] if s["outcome"] == outcome and s["by_layer"]]
    objectives = [name for name in OBJECTIVE_TITLES if any(s["objective"] == name for s in studies)]
    columns = max(1, len(objectives))
    figure = Figure(figsize=(max(2.4 * columns, 6.0), 3.2), layout="constrained")
    for objective, axes in zip(objectives, figure.subplots(1, columns, sharey=True, squeeze=False)[0], strict=False):
        restored = summary["fraction"]
        axes.plot(range(len(restored)), restored, color="black", linestyle="--", linewidth=1, label="fraction restored")
        for study in studies:
            if study["objective"] == objective:
                method = study["method"]
                axes.plot(
                    [int(layer) for layer in study["by_layer"]],
                    list(study["by_layer"].values()),
                    marker=".",
                    linewidth=1.2,
                    color=editor_color(method),
                    label=labels.get(method, method),
                )
        axes.set_title(OBJECTIVE_TITLES[objective], fontsize=9)
        axes.set_xlabel("layer", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.axes[0].set_ylabel(f"mean {outcome} score", fontsize=8)
    shown = {text: line for axes in figure.axes for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return add_title(figure, f"Edit success and tracing by layer: {model}, {summary['n_known']} facts")


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, shade: str) -> None:
    axes.scatter(x, y, s=6, alpha=0.5, color=shade, linewidths=0)
    if len(x) > 2 and np.ptp(x) > 1e-9:
        slope, start = np.polyfit(x, y, 1)
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, start + slope * ends, color="black", linewidth=1)
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(-0.05, 1.05)
    axes.tick_params(labelsize=6)
