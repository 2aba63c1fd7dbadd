"""A trace of one prompt as inline SVG for an HTML page: the same panels and scale as the figure, with each cell's value
on hover and on touch.

Text takes the page's colour (`currentColor`), and the lightest cells let the page's background through, so that the
picture fits light and dark pages. It has no style of its own, since pages allow none beside their style sheet: that
gets `TRACE_STYLE`. On hover browsers show a cell's `title`; where nothing hovers, `TRACE_SCRIPT` writes the value of
the touched cell below the panels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from romexp.analysis.trace_settings import in_percent, metric_title, setting_text, shown_scores, sign
from romexp.analysis.traces import KINDS
from romexp.reporting.figures.trace_scale import limits_of

HUES = {"hidden": "#6a51a3", "mlp": "#238b45", "attn": "#cb181d"}
"""The dark end of the figure's colour maps."""
NAMES = {"hidden": "state", "mlp": "MLP", "attn": "attention"}
CELL = {"height": 18, "most_width": 26, "panel": 208}
"""Sizes in pixels: height of a row, widest cell, width of a panel at most."""
SCALE = {"width": 160, "steps": 20}
"""Width in pixels of the scale, and its number of steps."""
CHARACTER = 7.2
"""Width in pixels of a character, about."""
MOST_LABEL = 18
BORDER = 'stroke="currentColor" stroke-opacity="0.12" stroke-width="0.5"'

TRACE_STYLE = "svg.trace { max-width: 100%; height: auto; font-family: inherit; }\n"
"""For a page's style sheet."""

TRACE_SCRIPT = """
document.addEventListener("pointerdown", event => {
  const cell = event.target.closest("svg.trace [aria-label]");
  document.querySelectorAll("svg.trace").forEach(svg => {
    const said = svg.querySelector(".said");
    if (said) said.textContent = cell && svg.contains(cell) ? cell.getAttribute("aria-label") : "";
  });
});
"""
"""For a page's script."""


def trace_svg(row: Mapping[str, Any], *, window: int) -> str:
    """The grids of one fact's trace as an SVG element.

    Args:
        row: the row of a trace (docs/method.md §11.2).
        window: number of layers that are replaced together for MLPs and attention.

    Returns:
        Markup; empty if the row has no grids, or no normalized scores where these are wanted.
    """
    shown = shown_scores(row)
    kinds = [kind for kind in KINDS if row.get(kind)]
    if shown is None or not kinds:
        return ""
    setting = row.get("setting") or {}
    labels = _labels(row)
    left = round(CHARACTER * max(map(len, labels))) + 8
    n_layers = len(shown[kinds[0]][0])
    width = min(CELL["most_width"], max(6, CELL["panel"] // n_layers))
    top, panel, gap = 22, width * n_layers, 26
    bottom = top + CELL["height"] * len(labels)
    total = left + len(kinds) * (panel + gap)
    low, high = limits_of(shown, kinds)
    parts = [_row_label(label, left - 6, top + CELL["height"] * (i + 0.7)) for i, label in enumerate(labels)]
    for number, kind in enumerate(kinds):
        at = left + number * (panel + gap)
        parts.append(_text(at + panel / 2, 14, _title(kind, window), anchor="middle"))
        parts += _cells(shown, kind, labels, at=at, top=top, width=width, limits=(low, high))
        step = 1 if n_layers <= 12 else 5
        parts += [
            _text(at + width * (layer + 0.5), bottom + 14, str(layer), anchor="middle", size=10)
            for layer in range(0, n_layers, step)
        ]
    parts += _scale(shown, setting, (low, high), x=left, y=bottom + 24)
    parts.append(f'<text class="said" x="{left}" y="{bottom + 70}" font-size="12" fill="currentColor"></text>')
    name = escape(f"Trace of {row['prompt']} → {row['answer'].strip()}", quote=True)
    box = f'viewBox="0 0 {total} {bottom + 76}" width="{total}" height="{bottom + 76}"'
    return f'<svg class="trace" {box} role="img" aria-label="{name}">' + "".join(parts) + "</svg>"


def _cells(
    row: Mapping[str, Any],
    kind: str,
    labels: Sequence[str],
    *,
    at: float,
    top: float,
    width: float,
    limits: tuple[float, float],
) -> list[str]:
    setting = row.get("setting") or {}
    cells = []
    for i, line in enumerate(row[kind]):
        for layer, value in enumerate(line):
            if value is None:
                continue
            said = f"{labels[i].rstrip('*')}, {NAMES[kind]}, layer {layer}: {_value(value, setting)}"
            place = (
                f'x="{at + width * layer:g}" y="{top + CELL["height"] * i}" width="{width}" height="{CELL["height"]}"'
            )
            fill = f'fill="{HUES[kind]}" fill-opacity="{_strength(value, setting, limits):.3f}" {BORDER}'
            cells.append(
                f'<rect {place} {fill} aria-label="{escape(said, quote=True)}"><title>{escape(said)}</title></rect>'
            )
    return cells


def _strength(value: float, setting: Mapping[str, Any], limits: tuple[float, float]) -> float:
    """How dark a cell is: 0 with no effect or one in the other direction, 1 at the far end of the scale."""
    low, high = limits
    share = (value - low) / (high - low)
    return float(np.clip(share if sign(setting) > 0 else 1 - share, 0, 1))


def _scale(
    row: Mapping[str, Any], setting: Mapping[str, Any], limits: tuple[float, float], *, x: float, y: float
) -> list[str]:
    """Under the panels: the scale that they share, with the scores of the clean and the corrupted run marked on it."""
    low, high = limits
    step = SCALE["width"] / SCALE["steps"]
    parts = []
    for i in range(SCALE["steps"]):
        strength = _strength(low + (high - low) * (i + 0.5) / SCALE["steps"], setting, limits)
        parts.append(
            f'<rect x="{x + step * i:g}" y="{y}" width="{step:g}" height="8" fill="currentColor" '
            f'fill-opacity="{strength:.2f}"/>'
        )
    for name in ("high_score", "low_score"):
        at = x + SCALE["width"] * min(1, max(0, (row[name] - low) / (high - low)))
        parts.append(f'<path d="M{at:g} {y - 3}v14" stroke="currentColor" stroke-width="1.5"/>')
    said = f"{metric_title(setting)}: clean {_value(row['high_score'], setting)}, "
    said += f"corrupted {_value(row['low_score'], setting)}"
    return [*parts, _text(x, y + 26, f"{said} ({setting_text(setting)})" if setting else said)]


def _title(kind: str, window: int) -> str:
    return NAMES[kind] if kind == "hidden" or window == 1 else f"{NAMES[kind]}, {window} layers"


def _labels(row: Mapping[str, Any]) -> list[str]:
    """The tokens; those of the subject end in a star. Long ones are shortened."""
    begin, end = row["subject_range"]
    tokens = [" ".join(token.split()) or "␣" for token in row["tokens"]]
    short = [token if len(token) <= MOST_LABEL else f"{token[: MOST_LABEL - 1]}…" for token in tokens]
    return [f"{token}{'*' if begin <= i < end else ''}" for i, token in enumerate(short)]


def _row_label(label: str, x: float, y: float) -> str:
    return _text(x, y, label, anchor="end")


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'
    )


def _value(value: float, setting: Mapping[str, Any]) -> str:
    return f"{value:.1%}" if in_percent(setting) else f"{value:.2f}"
