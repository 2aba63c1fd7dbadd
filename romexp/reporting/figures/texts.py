"""Generated texts of several editors side by side, as a picture (paper Fig. 6, App. G)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from romexp.analysis.generations import Generations
from romexp.reporting.figures.style import COLORS, UNEDITED_COLOR, plain

POINTS = 72.0
WIDTH = 7.2 * POINTS
LABELS = 84.0
"""Where the column of texts begins, right of the labels, in points."""
SIZE = 8.0
LEADING = 11.5
GAP = 5.0
MOST_CHARACTERS = 600
"""Longer texts are cut, with an ellipsis."""
LONGEST_WORD = 40
"""Longer ones are broken: some scripts have no spaces."""
BLACK, NEW, TRUE = "black", COLORS[1], COLORS[0]
Shades = Mapping[str, str]
"""Colour by phrase."""


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Text at a place: points from the left, and from the top to its baseline."""

    x: float
    y: float
    text: str
    color: str
    bold: bool


def generation_figure(cases: Sequence[Generations], *, title: str, texts: int = 1) -> Figure | None:
    """For each case the edited fact, then what each model wrote from the same prompts; both answers in colour.

    Args:
        cases: from top to bottom.
        texts: for each case, texts of this many different prompts.

    Returns:
        None without cases.
    """
    if not cases:
        return None
    pieces, y = _paragraph(title, {}, left=0, right=WIDTH, y=SIZE)
    for case in cases:
        more, y = _case(case, y + LEADING, texts)
        pieces += more
    figure = Figure(figsize=(WIDTH / POINTS, y / POINTS))
    for piece in pieces:
        weight = "bold" if piece.bold else "normal"
        place = (piece.x / WIDTH, 1 - piece.y / y)
        figure.text(*place, plain(piece.text), color=piece.color, fontsize=SIZE, fontweight=weight)
    return figure


def _case(case: Generations, y: float, texts: int) -> tuple[list[_Piece], float]:
    shades = {case.target_true.strip(): TRUE, case.target_new.strip(): NEW}
    heading = f"{case.fact} …  {case.target_new}, no longer {case.target_true}"
    pieces, y = _paragraph(heading, shades, left=0, right=WIDTH, y=y, bold=True)
    y += GAP
    for index in case.begins[:texts]:
        prompt = " ".join(case.prompts[index].split()) if index < len(case.prompts) else ""
        if prompt:
            names, _ = _paragraph("prompt", {}, left=0, right=LABELS - GAP, y=y, color=UNEDITED_COLOR)
            words, y = _paragraph(prompt, shades, left=LABELS, right=WIDTH, y=y)
            pieces, y = [*pieces, *names, *words], y + GAP / 2
        for number, (label, written) in enumerate(case.texts.items()):
            if index >= len(written):
                continue
            text = " ".join(written[index].split())
            # What was asked stands above; a text that is spelt otherwise after sampling is shown whole.
            text = _cut(f"… {text.removeprefix(prompt).strip()}" if prompt and text.startswith(prompt) else text)
            tone = BLACK if number else UNEDITED_COLOR
            names, below_name = _paragraph(label, {}, left=0, right=LABELS - GAP, y=y, bold=True, color=tone)
            words, below_text = _paragraph(text, shades, left=LABELS, right=WIDTH, y=y)
            pieces += names + words
            y = max(below_name, below_text) + GAP / 2
        y += GAP
    return pieces, y


def _paragraph(
    text: str, shades: Shades, *, left: float, right: float, y: float, bold: bool = False, color: str = BLACK
) -> tuple[list[_Piece], float]:
    """A text wrapped at words between `left` and `right`, and the baseline of what follows it."""
    x, pieces = left, []
    space = _width("a a", bold) - _width("aa", bold)
    for word in _words(text, shades, color):
        width = sum(_width(part, bold or shade != color) for part, shade in word)
        if x + width > right and x > left:
            x, y = left, y + LEADING
        for part, shade in word:
            heavy = bold or shade != color
            pieces.append(_Piece(x=x, y=y, text=part, color=shade, bold=heavy))
            x += _width(part, heavy)
        x += space
    return pieces, y + LEADING


def _words(text: str, shades: Shades, color: str) -> Iterator[list[tuple[str, str]]]:
    """Words in order, each in parts of one colour: a phrase of `shades`, and punctuation beside it, differ."""
    tones = [color] * len(text)
    for phrase, shade in shades.items():
        if phrase:
            for hit in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text):
                tones[hit.start() : hit.end()] = [shade] * len(phrase)
    for word in re.finditer(rf"\S{{1,{LONGEST_WORD}}}", text):
        places = range(word.start(), word.end())
        yield [("".join(text[i] for i in same), tone) for tone, same in groupby(places, key=tones.__getitem__)]


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS].rsplit(" ", 1)[0] + " …"


def _width(text: str, bold: bool) -> float:
    """Of a text on one line, in points."""
    font = FontProperties(size=SIZE, weight="bold" if bold else "normal")
    shown = plain(text).replace(r"\$", "$")
    return float(text_to_path.get_text_width_height_descent(shown, font, ismath=False)[0])
