"""A trace as inline SVG: well-formed, every cell with its value, safe with hostile tokens, dark where effects are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from romexp.reporting.trace_svg import trace_svg

SPACE = "{http://www.w3.org/2000/svg}"


def row(**changes: Any) -> dict[str, Any]:
    usual = {
        "prompt": "A <b> is",
        "tokens": ["A", ' <b onclick="x">', " is"],
        "subject_range": [0, 2],
        "answer": " & so",
        "high_score": 0.8,
        "low_score": 0.1,
        "mlp": [[0.1, 0.45], [0.8, 0.1], [None, 0.05]],
        "hidden": [[0.1, 0.1], [0.1, 0.1], [0.1, 0.8]],
    }
    return usual | changes


def cells(markup: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(markup)
    return [part for part in root.iter("rect") if part.get("aria-label")]


def test_every_cell_says_its_value() -> None:
    found = cells(trace_svg(row(), window=3))
    assert len(found) == 6 + 5  # one cell was not traced
    said = [part.get("aria-label") for part in found]
    assert "A, state, layer 0: 10.0%" in said
    assert "A, MLP, layer 1: 45.0%" in said
    assert [part.find("title").text for part in found] == said  # type: ignore[union-attr]


def test_darkness_follows_the_scale_that_all_panels_share() -> None:
    strength = {
        str(part.get("aria-label")): float(part.get("fill-opacity", "")) for part in cells(trace_svg(row(), window=1))
    }
    assert strength["A, MLP, layer 0: 10.0%"] == 0
    assert strength["A, MLP, layer 1: 45.0%"] == pytest.approx(0.5)
    assert strength["is, state, layer 1: 80.0%"] == 1
    assert strength["is, MLP, layer 1: 5.0%"] == 0  # below the corrupted run
    noised = trace_svg(row(setting={"direction": "noise"}), window=1)
    turned = {str(part.get("aria-label")): float(part.get("fill-opacity", "")) for part in cells(noised)}
    assert (turned["A, MLP, layer 0: 10.0%"], turned["is, state, layer 1: 80.0%"]) == (
        pytest.approx(0.933, abs=0.01),
        0,
    )


def test_nothing_of_the_text_is_markup_and_nothing_is_styled_inline() -> None:
    markup = trace_svg(row(), window=1)
    ElementTree.fromstring(markup)
    assert 'onclick="' not in markup
    assert "<b" not in markup
    assert not re.search(r"\sstyle=|<script|<style|https?:", markup)
    assert "currentColor" in markup


def test_rows_without_grids_have_no_picture() -> None:
    assert trace_svg(row(mlp=None, hidden=None), window=1) == ""
    assert trace_svg(row(high_score=0.1001, setting={"normalized": True}), window=1) == ""
