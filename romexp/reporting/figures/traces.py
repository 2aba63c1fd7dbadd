"""Figures of causal traces as in the paper: Figs. 1 and 2 (heat maps), 3 (severed), 7 (lines), 16 (gradients)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from romexp.analysis.trace_settings import (
    Setting,
    in_percent,
    metric_title,
    restores,
    setting_text,
    shown_scores,
    sign,
)
from romexp.analysis.traces import GROUPS, KINDS, LAST_SUBJECT
from romexp.reporting.figures.style import add_title, color, plain, write_figure
from romexp.reporting.figures.trace_scale import limits_of, mark_runs

COLORS = {"hidden": "Purples", "mlp": "Greens", "attn": "Reds"}
LINES = {"hidden": "#6a51a3", "mlp": "#238b45", "attn": "#cb181d", "ordinary": "#6a51a3"}
PARTS = {"hidden": "state", "mlp": "MLP", "attn": "attention"}
TITLE_LENGTH = 60
"""Most characters of a prompt that a title shows."""


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.pdf and `stem`.png with the title in their metadata. Equal figures give byte-identical files."""
    return write_figure(figure, stem, caption=" ".join(figure.get_suptitle().split()).replace(r"\$", "$"))


def prompt_heatmap(row: Mapping[str, Any], *, window: int, model: str) -> Figure | None:
    """The metric for one prompt (tokens × layers), in one panel for each kind; all panels share one scale.

    Subject tokens are marked with a star. The scale begins at the score with nothing replaced, and its bars mark the
    scores of the corrupted and of the clean run.

    Returns:
        None if the row has no grids, or no normalized scores where these are wanted.
    """
    shown = shown_scores(row)
    kinds = [kind for kind in KINDS if row.get(kind)]
    if not kinds or shown is None:
        return None
    setting = row.get("setting") or {}
    figure = Figure(figsize=(3.6 * len(kinds) + 0.9, 0.22 * len(row["tokens"]) + 1.7), layout="constrained")
    limits = limits_of(shown, kinds)
    for axes, kind in zip(np.atleast_1d(figure.subplots(1, len(kinds), sharey=True)), kinds, strict=True):
        _grid(figure, axes, shown, kind, limits)
        axes.set_title(_title(kind, window, setting), fontsize=9)
        axes.set_xlabel(_layer_label(kind, window, setting), fontsize=8)
    _row_labels(figure, _labels(row))
    figure.suptitle(_prompt_title(row, model), fontsize=10)
    return figure


def prompt_gradients(row: Mapping[str, Any], *, model: str) -> Figure | None:
    """Fig. 16: what integrated gradients attribute to each token, beside the trace of hidden states if there is one.

    Returns:
        None if the row has no gradients.
    """
    if not row.get("integrated_gradients"):
        return None
    tokens, values = _labels(row), np.array(row["integrated_gradients"], dtype=float)
    hidden = shown_scores(row) if row.get("hidden") else None
    figure = Figure(figsize=(7.6 if hidden else 3.8, 0.22 * len(tokens) + 1.7), layout="constrained")
    panels = figure.subplots(1, 2 if hidden else 1, sharey=True, squeeze=False)[0]
    setting = row.get("setting") or {}
    if hidden is not None:
        _grid(figure, panels[0], hidden, "hidden", limits_of(hidden, ["hidden"]))
        panels[0].set_title(f"causal trace, {_title('hidden', 1, setting)}", fontsize=9)
        panels[0].set_xlabel(_layer_label("hidden", 1, setting), fontsize=8)
    axes = panels[-1]
    axes.barh(np.arange(len(tokens)) + 0.5, values, 0.7, color=[LINES["hidden"] if v >= 0 else "0.6" for v in values])
    axes.axvline(0, color="0.4", linewidth=0.6)
    axes.set_ylim(0, len(tokens))
    axes.set_title("integrated gradients", fontsize=9)
    axes.set_xlabel(f"attribution of the embedding, in p({_shown(row['answer'])})", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    _row_labels(figure, tokens)
    figure.suptitle(_prompt_title(row, model), fontsize=10)
    return figure


def average_heatmaps(summary: Mapping[str, Any], *, window: int, model: str) -> Figure:
    """Average indirect effect (groups × layers), in one panel for each kind.

    Values are clipped at 0. All panels have the colour scale of the hidden states.
    """
    groups, setting = summary["groups"], summary.get("setting", {})
    kinds = [kind for kind in KINDS if any(kind in cells for cells in groups.values())]
    rows = [group for group in GROUPS if group in groups]
    figure = Figure(figsize=(3.5 * len(kinds) + 1.4, 0.25 * len(rows) + 1.3), layout="constrained")
    n_layers = max(len(cell["mean"]) for cells in groups.values() for cell in cells.values())
    grids = {kind: _group_grid(groups, rows, kind, n_layers) for kind in kinds}
    scale = float(np.nanmax(grids["hidden" if "hidden" in grids else kinds[0]]))
    for axes, kind in zip(np.atleast_1d(figure.subplots(1, len(kinds), sharey=True)), kinds, strict=True):
        image = axes.pcolormesh(
            np.ma.masked_invalid(grids[kind]).clip(min=0),
            cmap=COLORS[kind],
            vmin=0,
            vmax=max(scale, 1e-9),
            rasterized=True,  # vector graphics show thin lines between cells in some viewers
        )
        _layers(axes, n_layers)
        axes.set_title(_title(kind, window, setting), fontsize=9)
        axes.set_xlabel(_layer_label(kind, window, setting), fontsize=8)
        _colorbar(figure, image, axes, "AIE")
    _row_labels(figure, rows)
    figure.suptitle(
        f"Average indirect effect (AIE) on {metric_title(setting)}: {plain(model)}, {summary['n']} facts, "
        f"total effect {summary['ate']['mean']:.3f}{_remark(setting)}",
        fontsize=10,
    )
    return figure


def average_lines(summary: Mapping[str, Any], *, window: int, model: str) -> Figure:
    """Average indirect effect by layer with 95 % bands: one panel for each kind, one line for each group of tokens."""
    groups, setting = summary["groups"], summary.get("setting", {})
    kinds = [kind for kind in KINDS if any(kind in cells for cells in groups.values())]
    figure = Figure(figsize=(max(3.6 * len(kinds), 5.4), 3.2), layout="constrained")
    for axes, kind in zip(np.atleast_1d(figure.subplots(1, len(kinds), sharey=True)), kinds, strict=True):
        for number, group in enumerate(GROUPS):
            if kind in groups.get(group, {}):
                _band(axes, groups[group][kind], label=group, color=color(number))
        axes.set_title(_title(kind, window, setting), fontsize=9)
        axes.set_xlabel(_layer_label(kind, window, setting), fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.axhline(0, color="0.7", linewidth=0.6)
        axes.tick_params(axis="y", left=axes is figure.axes[0])
    figure.axes[0].set_ylabel(f"average indirect effect on {metric_title(setting)}", fontsize=8)
    # If only some tokens were traced, a panel may lack groups that another has.
    shown = {text: line for axes in figure.axes for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    labels = [group for group in GROUPS if group in shown]
    figure.legend(
        [shown[label] for label in labels], labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    title = f"Average indirect effect by layer: {model}, {summary['n']} facts, bands are 95 % intervals"
    title += _remark(setting)
    return add_title(figure, title)


def severed_bars(summary: Mapping[str, Any], *, model: str) -> Figure | None:
    """Fig. 3: effect of the restored last subject token with nothing, attention or MLPs severed.

    Returns:
        None if no severed paths were traced.
    """
    curves, setting = summary["severed"], summary.get("setting", {})
    if not curves:
        return None
    percent = in_percent(setting)
    n_layers = len(curves["ordinary"]["mean"])
    figure = Figure(figsize=(max(6.2, 0.16 * n_layers + 1), 3.2), layout="constrained")
    axes = figure.subplots()
    labels = {
        "ordinary": "effect of the single state",
        "attn": "with attention severed",
        "mlp": "with MLP severed",
    }
    for offset, name in zip((-0.3, 0.0, 0.3), ("ordinary", "attn", "mlp"), strict=True):
        scale = 100 if percent else 1
        mean, half = (scale * np.array(curves[name][part], dtype=float) for part in ("mean", "half_width"))
        axes.bar(
            np.arange(n_layers) + offset,
            mean,
            0.3,
            yerr=half,
            label=labels[name],
            color=LINES[name],
            error_kw={"linewidth": 0.6},
        )
    axes.axhline(0, color="0.4", linewidth=0.6)
    axes.set_xlabel(f"layer at which the state of the {LAST_SUBJECT} is restored", fontsize=8)
    axes.set_ylabel(f"indirect effect on {metric_title(setting)}{', %' if percent else ''}", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlim(-0.7, n_layers - 0.3)
    axes.tick_params(labelsize=7)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    title = f"Restored states with parts severed: {model}, {curves['ordinary']['n']} facts, 95 % intervals"
    title += _remark(setting)
    return add_title(figure, title)


def _group_grid(groups: Mapping[str, Mapping[str, Any]], rows: Sequence[str], kind: str, n_layers: int) -> np.ndarray:
    return np.array([groups[g][kind]["mean"] if kind in groups[g] else [np.nan] * n_layers for g in rows], dtype=float)


def _band(axes: Axes, cell: Mapping[str, Any], *, label: str, color: str) -> None:
    mean, half = (np.array(cell[part], dtype=float) for part in ("mean", "half_width"))  # None is NaN: no band
    layers = np.arange(len(mean))
    axes.plot(layers, mean, label=label, color=color, linewidth=1.2)
    axes.fill_between(layers, mean - half, mean + half, color=color, alpha=0.2, linewidth=0)
    axes.tick_params(labelsize=7)


def _layers(axes: Axes, n_layers: int) -> None:
    """Set ticks at the centres of cells: for every layer of models of up to 12 layers, else for every fifth layer."""
    step = 1 if n_layers <= 12 else 5
    axes.set_xticks(np.arange(0, n_layers, step) + 0.5, [str(i) for i in range(0, n_layers, step)], fontsize=7)


def _title(kind: str, window: int, setting: Setting) -> str:
    done = "restored" if restores(setting) else "corrupted"
    title = f"{PARTS[kind]} {done}"
    return title if kind == "hidden" or window == 1 else f"{title}, {window} layers"


def _layer_label(kind: str, window: int, setting: Setting) -> str:
    done = "restored" if restores(setting) else "corrupted"
    if kind == "hidden" or window == 1:
        return f"layer of the {done} {'state' if kind == 'hidden' else 'module'}"
    return f"centre of the interval of {window} {done} layers"


def _remark(setting: Setting) -> str:
    """How the trace differs from the paper's, to go at the end of a title."""
    return f" ({setting_text(setting)})" if setting else ""


def _grid(figure: Figure, axes: Axes, row: Mapping[str, Any], kind: str, limits: tuple[float, float]) -> None:
    """Draw one prompt's cells. Cells that have no effect, or one in the other direction, have the lightest colour."""
    setting, grid = row.get("setting") or {}, np.array(row[kind], dtype=float)
    image = axes.pcolormesh(
        np.ma.masked_invalid(grid),
        cmap=COLORS[kind] if sign(setting) > 0 else f"{COLORS[kind]}_r",
        vmin=limits[0],
        vmax=limits[1],
        rasterized=True,
    )
    _layers(axes, grid.shape[1])
    title = metric_title(setting).replace("answer", _shown(row["answer"]))
    bar = _colorbar(figure, image, axes, title.replace("foil", _shown(row.get("foil", "foil"))))
    mark_runs(bar, row)


def _colorbar(figure: Figure, image: Any, axes: Axes, label: str) -> Colorbar:
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return bar


def _row_labels(figure: Figure, labels: Sequence[str]) -> None:
    """Label the rows at the first panel only, with the first row on top."""
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    panels[0].invert_yaxis()
    panels[0].set_yticks(np.arange(len(labels)) + 0.5, labels, fontsize=8)
    for axes in panels[1:]:
        axes.tick_params(axis="y", left=False)


def _labels(row: Mapping[str, Any]) -> list[str]:
    """The tokens; those of the subject end in a star."""
    begin, end = row["subject_range"]
    return [f"{_shown(token)}{'*' if begin <= i < end else ''}" for i, token in enumerate(row["tokens"])]


def _prompt_title(row: Mapping[str, Any], model: str) -> str:
    """The model, the end of the prompt, the answer and its probability."""
    prompt = row["prompt"]
    if len(prompt) > TITLE_LENGTH:
        prompt = f"… {prompt[-TITLE_LENGTH:].partition(' ')[2]}"
    probability = row.get("probability", row["high_score"])
    return f"{plain(model)}: {plain(prompt)} → {_shown(row['answer'])} ({probability:.0%}){_partner(row)}"


def _partner(row: Mapping[str, Any]) -> str:
    """On a line of its own, how the trace differs from the paper's."""
    setting = row.get("setting") or {}
    partner = f"; {_shown(row['partner'])} in the subject's place" if row.get("partner") else ""
    return f"\n{setting_text(setting)}{partner}" if setting else ""


def _shown(token: str) -> str:
    return plain(token.replace("\n", "\\n"))
