"""The heat maps of a fact on the page: every cell with its value, safe with hostile tokens, dark where effects are."""

from __future__ import annotations

import html
import json
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from romexp.reporting.page.figures import PageFigure
from romexp.reporting.page.traces import fact_figure


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


def figure_of(**changes: Any) -> PageFigure:
    figure = fact_figure(row(**changes), model="m", window=3)
    assert figure is not None
    return figure


def cells(panel: str) -> list[float]:
    """How dark the cells are, in the order of tokens and then layers."""
    root = ElementTree.fromstring(panel)
    return [float(part.get("fill-opacity", "")) for part in root.iter("rect")]


def test_every_cell_says_its_value() -> None:
    states, mlps = figure_of().panels
    assert (len(cells(states)), len(cells(mlps))) == (6, 5)  # one cell was not traced
    found = re.search(r'data-heat="([^"]*)"', mlps)
    assert found
    said = json.loads(html.unescape(found[1]))
    assert said["rows"] == ["A*", ' <b onclick="x">*', " is"]
    assert said["values"] == [["10.0 %", "45.0 %"], ["80.0 %", "10.0 %"], ["–", "5.0 %"]]


def test_the_clean_and_the_corrupted_level_are_said() -> None:
    assert "clean 80.0 %, corrupted 10.0 %" in figure_of().caption


def test_darkness_follows_the_scale_that_all_panels_share() -> None:
    states, mlps = map(cells, figure_of().panels)
    assert mlps[0] == 0
    assert mlps[1] == pytest.approx(0.5)
    assert states[-1] == 1
    assert mlps[-1] == 0  # below the corrupted run
    turned_states, turned_mlps = map(cells, figure_of(setting={"direction": "noise"}).panels)
    assert (turned_mlps[0], turned_states[-1]) == (pytest.approx(0.933, abs=0.01), 0)


def test_nothing_of_the_text_is_markup_and_nothing_is_styled_inline() -> None:
    for panel in figure_of().panels:
        ElementTree.fromstring(panel)
        assert 'onclick="' not in panel
        assert "<b" not in panel
        assert not re.search(r"\sstyle=|<script|<style|https?:", panel)


def test_rows_without_grids_have_no_picture() -> None:
    assert fact_figure(row(mlp=None, hidden=None), model="m", window=1) is None
    assert fact_figure(row(high_score=0.1001, setting={"normalized": True}), model="m", window=1) is None
