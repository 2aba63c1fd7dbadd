"""Figures of causal traces in the paper's manner: heat maps (Figs. 1, 2), lines (Fig. 7), severed bars (Fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from romexp.reporting.trace_averages import GROUPS, KINDS, LAST_SUBJECT

COLORS = {"hidden": "Purples", "mlp": "Greens", "attn": "Reds"}
LINES = {"hidden": "#6a51a3", "mlp": "#238b45", "attn": "#cb181d", "ordinary": "#6a51a3"}
TITLES = {
    "hidden": "state restored",
    "mlp": "MLP restored",
    "attn": "attention restored",
}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.pdf and `stem`.png, byte-identical when repeated."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.pdf"), stem.with_name(f"{stem.name}.png")]
    figure.savefig(paths[0], metadata={"CreationDate": None}, bbox_inches="tight")
    figure.savefig(paths[1], dpi=160, metadata={"Software": None}, bbox_inches="tight")
    return paths


def prompt_heatmap(row: Mapping[str, Any], *, window: int) -> Figure:
    """p(answer) of one prompt, token × layer, a panel a kind; subject tokens starred, colours from the low score up."""
    kinds = [kind for kind in KINDS if row.get(kind)]
    tokens = row["tokens"]
    figure = Figure(figsize=(3.4 * len(kinds) + 0.6, 0.22 * len(tokens) + 1.4), layout="constrained")
    begin, end = row["subject_range"]
    labels = [f"{_shown(token)}{'*' if begin <= i < end else ''}" for i, token in enumerate(tokens)]
    for axes, kind in zip(np.atleast_1d(figure.subplots(1, len(kinds), sharey=True)), kinds, strict=True):
        grid = np.array(row[kind], dtype=float)
        image = axes.pcolormesh(np.ma.masked_invalid(grid), cmap=COLORS[kind], vmin=row["low_score"])
        _layers(axes, grid.shape[1])
        axes.set_title(_title(kind, window), fontsize=9)
        axes.set_xlabel(_layer_label(kind, window), fontsize=8)
        bar = figure.colorbar(image, ax=axes)
        bar.ax.set_title(f"p({row['answer'].strip()})", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    first = figure.axes[0]
    first.invert_yaxis()
    first.set_yticks(np.arange(len(tokens)) + 0.5, labels, fontsize=8)
    return figure


def average_heatmaps(summary: Mapping[str, Any], *, window: int, model: str) -> Figure:
    """Average indirect effect, group × layer, a panel a kind; clipped at 0, all on the hidden states' colour scale."""
    groups = summary["groups"]
    kinds = [kind for kind in KINDS if any(kind in cells for cells in groups.values())]
    figure = Figure(figsize=(3.5 * len(kinds) + 1.4, 2.5), layout="constrained")
    rows = [group for group in GROUPS if group in groups]
    n_layers = max(len(cell["mean"]) for cells in groups.values() for cell in cells.values())
    grids = {kind: _group_grid(groups, rows, kind, n_layers) for kind in kinds}
    scale = float(np.nanmax(grids["hidden" if "hidden" in grids else kinds[0]]))
    for axes, kind in zip(np.atleast_1d(figure.subplots(1, len(kinds), sharey=True)), kinds, strict=True):
        image = axes.pcolormesh(
            np.ma.masked_invalid(grids[kind]).clip(min=0), cmap=COLORS[kind], vmin=0, vmax=max(scale, 1e-9)
        )
        _layers(axes, n_layers)
        axes.set_title(_title(kind, window), fontsize=9)
        axes.set_xlabel(_layer_label(kind, window), fontsize=8)
        figure.colorbar(image, ax=axes).ax.tick_params(labelsize=7)
    first = figure.axes[0]
    first.invert_yaxis()
    first.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=8)
    figure.suptitle(
        f"Average indirect effect on {model}, {summary['n']} facts, ATE {summary['ate']['mean']:.1%}", fontsize=10
    )
    return figure


def average_lines(summary: Mapping[str, Any], *, window: int, model: str) -> Figure:
    """Average indirect effect by layer with 95 % bands, a line a group, a panel a kind."""
    groups = summary["groups"]
    kinds = [kind for kind in KINDS if any(kind in cells for cells in groups.values())]
    figure = Figure(figsize=(3.6 * len(kinds), 2.8), layout="constrained")
    for axes, kind in zip(np.atleast_1d(figure.subplots(1, len(kinds), sharey=True)), kinds, strict=True):
        for number, group in enumerate(g for g in GROUPS if kind in groups.get(g, {})):
            cell = groups[group][kind]
            _band(axes, cell, label=group, color=f"C{number}")
        axes.set_title(_title(kind, window), fontsize=9)
        axes.set_xlabel(_layer_label(kind, window), fontsize=8)
        axes.axhline(0, color="0.7", linewidth=0.6)
    figure.axes[0].set_ylabel("average indirect effect on p", fontsize=8)
    figure.axes[-1].legend(fontsize=6, frameon=False)
    figure.suptitle(f"{model}, {summary['n']} facts, bands are 95 % intervals", fontsize=10)
    return figure


def severed_bars(summary: Mapping[str, Any], *, model: str) -> Figure | None:
    """Fig. 3: the restored last subject token with nothing, attention or MLPs frozen. None without such rows."""
    curves = summary["severed"]
    if not curves:
        return None
    figure = Figure(figsize=(6.2, 2.6), layout="constrained")
    axes = figure.subplots()
    labels = {
        "ordinary": f"effect of single state on p ({LAST_SUBJECT})",
        "attn": "effect with attention severed",
        "mlp": "effect with MLP severed",
    }
    for offset, name in zip((-0.3, 0.0, 0.3), ("ordinary", "attn", "mlp"), strict=True):
        mean, half = np.array(curves[name]["mean"]) * 100, np.array(curves[name]["half_width"]) * 100
        axes.bar(
            np.arange(len(mean)) + offset,
            mean,
            0.3,
            yerr=half,
            label=labels[name],
            color=LINES[name],
            error_kw={"linewidth": 0.6},
        )
    axes.set_xlabel("layer at which the single hidden state is restored", fontsize=8)
    axes.set_ylabel("indirect effect (%)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False)
    axes.set_title(f"{model}, {curves['ordinary']['n']} facts", fontsize=9)
    return figure


def _group_grid(groups: Mapping[str, Mapping[str, Any]], rows: Sequence[str], kind: str, n_layers: int) -> np.ndarray:
    return np.array([groups[g][kind]["mean"] if kind in groups[g] else [np.nan] * n_layers for g in rows], dtype=float)


def _band(axes: Axes, cell: Mapping[str, Any], *, label: str, color: str) -> None:
    mean, half = np.array(cell["mean"]), np.array(cell["half_width"])
    layers = np.arange(len(mean))
    axes.plot(layers, mean, label=label, color=color, linewidth=1.2)
    axes.fill_between(layers, mean - half, mean + half, color=color, alpha=0.2, linewidth=0)
    axes.tick_params(labelsize=7)


def _layers(axes: Axes, n_layers: int) -> None:
    """A tick every layer in small models, every fifth in large ones; cells are centred on their tick."""
    step = 1 if n_layers <= 12 else 5
    axes.set_xticks(np.arange(0, n_layers, step) + 0.5, [str(i) for i in range(0, n_layers, step)], fontsize=7)


def _title(kind: str, window: int) -> str:
    return TITLES[kind] if kind == "hidden" else f"{TITLES[kind]}, {window} layers"


def _layer_label(kind: str, window: int) -> str:
    return "layer of the restored state" if kind == "hidden" else f"centre of the interval of {window} restored layers"


def _shown(token: str) -> str:
    return token.replace("\n", "\\n").replace("$", r"\$")
