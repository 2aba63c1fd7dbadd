"""Heads, neurons and the logit lens as one table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from romexp.analysis.trace_settings import metric_title, setting_text
from romexp.analysis.traces import traced
from romexp.reporting.tables.fitting import FittingTable
from romexp.reporting.terminal import literal

SHOWN = 10


def node_table(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """For one fact its heads or neurons with the largest effects, for several facts those of the averages; for the lens
    the layers from which on the answer is the most likely token.
    """
    known = traced(rows)
    setting = summary.get("setting", {})
    caption = f"{summary['n']} facts, {summary['n_incorrect']} predicted otherwise"
    if len(known) == 1:
        row = known[0]
        caption = f"{row['prompt']} → {row['answer'].strip()}: clean {row['high_score']:.3f}"
        if summary["nodes"] != "lens":
            caption += f", corrupted {row['low_score']:.3f}"
    if setting:
        caption += f" ({setting_text(setting)}; {metric_title(setting)})"
    table = FittingTable(title=title, caption=caption, title_justify="left", caption_justify="left")
    head, lines = {"heads": _heads, "neurons": _neurons, "lens": _lens}[summary["nodes"]](summary, known)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for line in lines:
        table.add_row(*(literal(cell) for cell in line))
    return table


Part = tuple[Sequence[str], Iterator[Sequence[str]] | Sequence[Sequence[str]]]


def _heads(summary: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> Part:
    effects = np.array(summary["heads"], dtype=float)
    ranked = np.argsort(-np.abs(effects), axis=None)[:SHOWN]
    places = [divmod(int(i), effects.shape[1]) for i in ranked]
    lines = [[f"layer {layer}, head {head}", f"{effects[layer, head]:+.3f}"] for layer, head in places]
    if len(known) != 1:
        return ("head", "mean effect"), lines
    (row,) = known
    for line, (layer, head) in zip(lines, places, strict=True):
        seen = np.array(row["attention"][layer][head])
        best = int(seen.argmax())
        line.append(f"{row['tokens'][best]!r} ({seen[best]:.2f})")
    return ("head", "effect", "the last token attends most to"), lines


def _neurons(summary: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> Part:
    if len(known) != 1:
        return ("neuron", "facts", "mean effect", "promotes"), [
            [f"layer {n['layer']}, {n['neuron']}", str(n["n_facts"]), f"{n['effect']:+.3f}", ", ".join(n["promotes"])]
            for n in summary["neurons"][:SHOWN]
        ]
    (row,) = known
    return ("neuron", "token", "estimate", "effect", "promotes"), [
        [
            f"layer {n['layer']}, {n['neuron']}",
            repr(row["tokens"][n["token"]]),
            f"{n['estimate']:+.3f}",
            "–" if n["effect"] is None else f"{n['effect']:+.3f}",
            ", ".join(n["promotes"]),
        ]
        for n in row["neurons"][:SHOWN]
    ]


def _lens(summary: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> Part:
    if len(known) != 1:
        curves = summary["lens"]
        heads = ("layer", *(f"{name}, {where}" for where in curves for name in ("p(answer)", "said")))
        n_layers = len(next(iter(curves.values()))["probability"])
        return heads, [
            [
                str(layer),
                *(f"{curve[name][layer]:.1%}" for curve in curves.values() for name in ("probability", "first")),
            ]
            for layer in range(n_layers)
        ]
    (row,) = known
    return ("token", "most likely", "p(answer)", "said from layer"), [
        [repr(token), repr(row["lens_tokens"][i][-1]), f"{row['lens'][i][-1]:.3f}", _since(row["lens_ranks"][i])]
        for i, token in enumerate(row["tokens"])
    ]


def _since(ranks: Sequence[int]) -> str:
    """The layer from which on the answer is the most likely token; a dash if it is not at the end."""
    since = len(ranks)
    while since and ranks[since - 1] == 1:
        since -= 1
    return "–" if since == len(ranks) else str(since)
