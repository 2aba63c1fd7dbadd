"""Heat maps as inline SVG whose values the page's script shows on hover, on touch, and by the arrow keys."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH = 344
"""Width of a heat map in pixels: what a phone of 390 pixels shows."""
ROW = 17
"""Height of a row of cells in pixels."""
LETTER = 6.4
"""Width of a letter of a label in pixels."""
LONGEST = 24
"""Labels are cut to this many letters; the value that the script shows names them whole."""


def heatmap(
    grid: Sequence[Sequence[float | None]],
    *,
    labels: Sequence[str],
    kind: str,
    title: str,
    limits: tuple[float, float],
    percent: bool,
    across: str = "layer",
) -> Markup:
    """The values of a grid (rows × columns) as shades of one colour on the page's own background.

    Args:
        grid: the values; None, or NaN, for a cell that has none.
        labels: what the rows are called.
        kind: `hidden`, `mlp` or `attn`, which decides the colour.
        title: what stands above it.
        limits: the value without colour and the value with the full colour, in either order of size.
        percent: show values times 100, with a percent sign.
        across: what a column is called.
    """
    rows = [[None if cell is None or not math.isfinite(cell) else float(cell) for cell in row] for row in grid]
    columns = max((len(row) for row in rows), default=0)
    left = round(LETTER * min(max(map(len, labels), default=0), LONGEST)) + 8
    cell = min((WIDTH - left) / max(columns, 1), 26)
    width, height = round(left + cell * columns) + 1, ROW * len(rows) + 30
    parts = [f'<text class="heat-label" x="{left - 6}" y="{ROW * i + 12.5:g}">{escape(_cut(label))}</text>'
             for i, label in enumerate(labels)]  # fmt: skip
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            parts += _cell(value, limits, x=left + cell * j, y=ROW * i, width=cell)
    parts += _axis(columns, left=left, cell=cell, y=ROW * len(rows), across=across)
    data = {
        "rows": list(labels),
        "values": [[value_text(value, percent=percent) for value in row] for row in rows],
        "left": left,
        "cell": round(cell, 4),
        "height": ROW,
        "across": across,
    }
    return Markup(
        f'<figure class="heat" data-heat="{escape(json.dumps(data, separators=(",", ":")))}">'
        f"<h5>{escape(title)}</h5>"
        f'<svg role="img" tabindex="0" aria-label="{escape(title)}" class="heat-{escape(kind)}" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
        f'<output aria-live="polite">{escape(_scale(limits, percent=percent))}</output></figure>'
    )


def _cell(value: float | None, limits: tuple[float, float], *, x: float, y: float, width: float) -> list[str]:
    if value is None:
        return []
    start, end = limits
    level = min(max((value - start) / (end - start or 1.0), 0.0), 1.0) + 0.0  # −0 becomes 0
    return [f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{ROW}" fill-opacity="{level:.3f}"/>']


def _axis(columns: int, *, left: float, cell: float, y: float, across: str) -> list[str]:
    step = 1 if columns <= 12 else 5
    frame = f'<path class="heat-frame" d="M{left} 0V{y}H{left + cell * columns:.1f}V0Z"/>'
    ticks = [
        f'<text class="heat-tick" x="{left + cell * (j + 0.5):.1f}" y="{y + 12}">{j}</text>'
        for j in range(0, columns, step)
    ]
    middle = left + cell * columns / 2
    return [frame, *ticks, f'<text class="heat-tick" x="{middle:.1f}" y="{y + 26}">{escape(across)}</text>']


def _scale(limits: tuple[float, float], *, percent: bool) -> str:
    return f"no colour: {value_text(limits[0], percent=percent)}, full colour: {value_text(limits[1], percent=percent)}"


def value_text(value: float | None, *, percent: bool) -> str:
    """A value as the page shows it."""
    if value is None:
        return "–"
    shown = f"{100 * value:.1f} %" if percent else f"{value:.3f}"
    return shown.replace("-", "−")


def _cut(label: str) -> str:
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
