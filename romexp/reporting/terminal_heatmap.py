"""A causal trace as text: one line for each token, one cell for each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from romexp.analysis.trace_settings import base_name, metric_title, restores, sign

SHADES = " ░▒▓█"
"""From the score with nothing replaced to the farthest one, in equal steps."""
TOKEN_WIDTH = 14
WIDE_UP_TO = 20
"""Models of up to this many layers get two characters for each layer."""
PARTS = {"hidden": "state", "mlp": "MLPs", "attn": "attention"}


def terminal_heatmap(row: Mapping[str, Any], kind: str, *, window: int) -> Text:
    """The metric by token and layer for one kind of replaced state. Subject tokens are marked with a star.

    Args:
        row: a row of `task=trace` (docs/method.md §11.2).
        kind: `hidden`, `mlp` or `attn`.
        window: number of layers that are restored together, for `mlp` and `attn`.
    """
    setting = row.get("setting") or {}
    grid, base, upwards = row[kind], row[base_name(setting)], sign(setting)
    top = max((score for scores in grid for score in scores if score is not None), key=lambda score: upwards * score)
    n_layers, (begin, end) = len(grid[0]), row["subject_range"]
    width = 2 if n_layers <= WIDE_UP_TO else 1
    title = f"{PARTS[kind]} {'restored' if restores(setting) else 'corrupted'}"
    title += "" if kind == "hidden" or window == 1 else f", {window} layers around"
    metric = metric_title(setting).replace("answer", row["answer"].strip())
    lines = [Text(f"{title}: {metric} {base:.3f} to {top:.3f}", style="bold")]
    for i, (token, scores) in enumerate(zip(row["tokens"], grid, strict=True)):
        name = f"{_one_line(token)}{'*' if begin <= i < end else ''}"
        name = name if len(name) <= TOKEN_WIDTH else f"{name[: TOKEN_WIDTH - 1]}…"
        cells = "".join(_shade(score, base, top) * width for score in scores)
        lines.append(Text(f"{name:>{TOKEN_WIDTH}} │{cells}│"))
    axis = "".join(f"{layer:<{5 * width}}" for layer in range(0, n_layers, 5))
    lines.append(Text(f"{'layer':>{TOKEN_WIDTH}}  {axis}".rstrip()))
    return Text("\n").join(lines)


def _shade(score: float | None, base: float, top: float) -> str:
    if score is None or top == base:
        return SHADES[0]
    share = min(max((score - base) / (top - base), 0.0), 1.0)
    return SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)]


def _one_line(token: str) -> str:
    return token.strip().replace("\n", "⏎") or "⏎" * token.count("\n") or "␣"
