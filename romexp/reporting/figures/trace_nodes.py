"""Figures of attention heads, neurons and the logit lens, in the style of those of causal traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from romexp.analysis.trace_nodes import base_score
from romexp.analysis.trace_settings import metric_title, setting_text
from romexp.reporting.figures.style import add_title, color, plain

LETTERS = 9
"""Most characters of a token in a cell of the lens."""
LINES = {"positive": "#238b45", "negative": "#cb181d"}


def node_figure(row: Mapping[str, Any], *, model: str) -> Figure:
    """The figure of one fact, whatever `tracer.nodes` was."""
    draw = {"heads": _heads, "neurons": _neurons, "lens": _lens}[row["nodes"]]
    figure = draw(row)
    setting = row.get("setting") or {}
    remark = f" ({setting_text(setting)})" if setting else ""
    return add_title(figure, f"{model}: {_end(row['prompt'])} → {row['answer']} ({row['high_score']:.3g}){remark}")


def average_figure(summary: Mapping[str, Any], *, model: str) -> Figure | None:
    """The figure of all facts' averages; None for neurons, which are a table."""
    facts = f"{model}, {summary['n']} facts"
    if summary["nodes"] == "heads":
        grid = np.array(summary["heads"], dtype=float)
        figure = Figure(figsize=(0.2 * grid.shape[1] + 2.4, 0.16 * len(grid) + 1.6), layout="constrained")
        effect = metric_title(summary.get("setting", {}))
        _effects(figure, figure.subplots(), grid, f"mean effect on {effect}")
        return add_title(figure, f"Effect of single attention heads: {facts}")
    if summary["nodes"] == "lens":
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for number, (where, curve) in enumerate(summary["lens"].items()):
            axes.plot(curve["probability"], color=color(number), label=f"p(answer), {where}")
            axes.plot(curve["first"], color=color(number), linestyle="--", label=f"share of facts, {where}")
        axes.set_xlabel("layer", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_ylim(-0.03, 1.03)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
        return add_title(figure, f"Logit lens: {facts}; dashed: the answer is the most likely token")
    return None


def _heads(row: Mapping[str, Any]) -> Figure:
    """Effects by layer and head, and what the heads with the largest effects attend to."""
    grid = np.array(row["heads"], dtype=float) - base_score(row)
    tokens = [plain(token) for token in row["tokens"]]
    n = len(row["patterns"])
    width = 0.2 * grid.shape[1] + 2.6
    figure = Figure(figsize=(width + 2.1 * n, max(0.16 * len(grid), 0.2 * len(tokens)) + 1.9), layout="constrained")
    panels = figure.subplots(1, 1 + n, width_ratios=[width, *[2.1] * n], squeeze=False)[0]
    _effects(figure, panels[0], grid, f"effect on {metric_title(row.get('setting') or {})}")
    for axes, one in zip(panels[1:], row["patterns"], strict=True):
        axes.pcolormesh(np.array(one["pattern"]), cmap="Reds", vmin=0, vmax=1, rasterized=True)
        axes.invert_yaxis()
        axes.set_title(f"layer {one['layer']}, head {one['head']}", fontsize=9)
        places = np.arange(len(tokens)) + 0.5
        axes.set_xticks(places, tokens, fontsize=6, rotation=90)
        axes.set_yticks(places, tokens if axes is panels[1] else [""] * len(tokens), fontsize=6)
        axes.set_xlabel("attends to", fontsize=8)
    return figure


def _effects(figure: Figure, axes: Axes, grid: np.ndarray, label: str) -> None:
    """Layers × heads on a scale with 0 in its middle."""
    reach = max(float(np.nanmax(np.abs(grid))), 1e-9)
    image = axes.pcolormesh(grid, cmap="PRGn", vmin=-reach, vmax=reach, rasterized=True)
    axes.invert_yaxis()
    for ticks, count in ((axes.set_yticks, len(grid)), (axes.set_xticks, grid.shape[1])):
        step = 1 if count <= 12 else 5
        ticks(np.arange(0, count, step) + 0.5, [str(i) for i in range(0, count, step)], fontsize=7)
    axes.set_xlabel("head", fontsize=8)
    axes.set_ylabel("layer", fontsize=8)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _neurons(row: Mapping[str, Any]) -> Figure:
    """One bar for each neuron, with the tokens that it promotes."""
    neurons: Sequence[Mapping[str, Any]] = row["neurons"]
    effects = [n["estimate"] if n["effect"] is None else n["effect"] for n in neurons]
    figure = Figure(figsize=(7.2, 0.22 * max(1, len(neurons)) + 1.4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(neurons))
    axes.barh(places, effects, 0.7, color=[LINES["positive" if value >= 0 else "negative"] for value in effects])
    axes.set_yticks(places, [_neuron_label(row, n) for n in neurons], fontsize=7)
    axes.invert_yaxis()
    axes.axvline(0, color="0.4", linewidth=0.6)
    computed = "effect" if any(n["effect"] is not None for n in neurons) else "estimated effect"
    axes.set_xlabel(f"{computed} of the single neuron on {metric_title(row.get('setting') or {})}", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    return figure


def _neuron_label(row: Mapping[str, Any], neuron: Mapping[str, Any]) -> str:
    promoted = ", ".join(plain(token) for token in neuron["promotes"])
    return f"layer {neuron['layer']}, {neuron['neuron']} at {plain(row['tokens'][neuron['token']])} → {promoted}"


def _lens(row: Mapping[str, Any]) -> Figure:
    """The most likely token in each cell, coloured by the probability of the answer."""
    grid, words = np.array(row["lens"], dtype=float), row["lens_tokens"]
    begin, end = row["subject_range"]
    n_tokens, n_layers = grid.shape
    with_words = n_layers <= 12
    figure = Figure(
        figsize=((0.72 if with_words else 0.3) * n_layers + 2.2, 0.24 * n_tokens + 1.6), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.pcolormesh(grid, cmap="Purples", vmin=0, vmax=1, rasterized=True)
    size = 6 if with_words else 4
    for token in range(n_tokens):
        for layer in range(n_layers):
            shade = "white" if grid[token, layer] > 0.5 else "black"
            word = plain(words[token][layer].replace("\n", "\\n"))[: LETTERS if with_words else 4]
            axes.text(layer + 0.5, token + 0.5, word, fontsize=size, ha="center", va="center", color=shade)
    axes.invert_yaxis()
    step = 1 if n_layers <= 12 else 5
    axes.set_xticks(np.arange(0, n_layers, step) + 0.5, [str(i) for i in range(0, n_layers, step)], fontsize=7)
    labels = [f"{plain(t)}{'*' if begin <= i < end else ''}" for i, t in enumerate(row["tokens"])]
    axes.set_yticks(np.arange(n_tokens) + 0.5, labels, fontsize=8)
    axes.set_xlabel("what the model would say from the state after this layer", fontsize=8)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(f"p({plain(row['answer'])})", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _end(prompt: str) -> str:
    return prompt if len(prompt) <= 60 else f"… {prompt[-60:].partition(' ')[2]}"
