"""Figures of the page as inline SVG: they follow dark mode, need no style attribute, heat maps hold their values."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from page_runs_made_up import studies, write_editors, write_sweep
from report_runs import write_run

from romexp.reporting.figures.editors import POINTS, box_panel
from romexp.reporting.page.figures import PANEL, study_figures
from romexp.reporting.page.heatmap import WIDTH, heatmap
from romexp.reporting.page.render import write_page
from romexp.reporting.page.svg import inline_svg


def drawn(prefix: str = "one") -> str:
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot([0, 1, 2], [0, 1, 0], color="#D1495B", marker="o")
    axes.axhline(0.5, color="0.9")
    axes.set_title("<b>5 > 3</b>")
    axes.set_ylabel("plain")
    return str(inline_svg(figure, prefix=prefix, label='say "hi"'))


def test_colours_of_text_are_the_pages_own() -> None:
    svg = drawn()
    assert not re.search(r"\sstyle=|<style|<metadata|url\(http|#000000|#e6e6e6", svg)
    assert 'stroke="currentColor"' in svg
    assert 'stroke-opacity="0.098"' in svg  # of the light grey line
    assert "#d1495b" in svg  # the control: a colour that means something stays


def test_texts_are_texts_and_escaped() -> None:
    svg = drawn()
    assert "&lt;b&gt;5 &gt; 3&lt;/b&gt;" in svg
    assert "plain</text>" in svg
    assert 'aria-label="say &#34;hi&#34;"' in svg


def test_ids_are_unique_in_the_page_and_references_follow() -> None:
    one, two = drawn("one"), drawn("two")
    ids = [set(re.findall(r'\sid="([^"]+)"', svg)) for svg in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in zip((one, two), ids, strict=True):
        used = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
        assert used
        assert used <= own
    assert drawn("one") == one


@pytest.mark.parametrize(
    "editors", [{"rome": 4.0}, dict.fromkeys(("ft", "ft_l", "kn", "ke", "mend", "rome", "ft_attn"), 2.0)]
)
def test_panels_are_as_wide_as_a_phone_for_one_editor_or_seven(tmp_path: Path, editors: dict[str, float]) -> None:
    write_editors(tmp_path, editors=editors)
    (study,) = studies(tmp_path)
    bars, boxes = study_figures(study, heading="h", identifier="i", x=None, shared=True)
    for figure in (bars, boxes):
        assert figure.panels
        for panel in figure.panels:
            width = int(re.search(r'width="(\d+)"', panel)[1])  # type: ignore[index]
            assert 250 < width <= PANEL * 96 + 8
            for label in editors:
                assert {"rome": "ROME", "ft": "FT"}.get(label, "") in panel


def test_a_sweep_has_a_panel_for_each_metric_and_a_legend(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    (study,) = studies(tmp_path)
    *_, sweep = study_figures(study, heading="here", identifier="i", x=None, shared=True)
    assert sweep.caption.startswith("ROME by layer, here")
    assert len(sweep.panels) == len(study.columns) + 1
    assert "last subject token" in sweep.panels[-1]


def test_thousands_of_outliers_are_as_many_points_as_can_be_seen(tmp_path: Path) -> None:
    import pandas as pd

    values = np.concatenate([np.full(40000, 0.5), np.linspace(0, 0.2, 9000)])
    frame = pd.DataFrame({"post/EM": values})
    figure = box_panel({"ROME": frame}, "EM", colors={})
    (points,) = [line for line in figure.axes[0].lines if line.get_marker() == "."]
    shown = np.asarray(points.get_xdata(), dtype=float)
    assert len(shown) <= POINTS + 1
    assert (shown.min(), shown.max()) == pytest.approx((0, 20), abs=20 / POINTS)


class TestHeatmap:
    GRID = ((0.0, 0.5, None), (1.0, float("nan"), 0.25))

    def draw(self, **more: object) -> str:
        options = {"labels": ["<i>Ada", " in\\n"], "kind": "mlp", "title": "MLP", "limits": (0.0, 1.0), "percent": True}
        return str(heatmap(self.GRID, **{**options, **more}))  # type: ignore[arg-type]

    def data(self, text: str) -> dict[str, object]:
        return json.loads(html.unescape(re.search(r'data-heat="([^"]*)"', text)[1]))  # type: ignore[index]

    def test_values_come_with_it(self) -> None:
        text = self.draw()
        assert self.data(text)["values"] == [["0.0 %", "50.0 %", "–"], ["100.0 %", "–", "25.0 %"]]
        assert self.data(text)["rows"] == ["<i>Ada", " in\\n"]
        assert "<i>" not in text

    def test_shades_grow_with_the_values_from_no_colour(self) -> None:
        shades = [float(x) for x in re.findall(r'fill-opacity="([\d.]+)"', self.draw())]
        assert shades == [0.0, 0.5, 1.0, 0.25]
        turned = [float(x) for x in re.findall(r'fill-opacity="([\d.]+)"', self.draw(limits=(1.0, 0.0)))]
        assert turned == [1.0, 0.5, 0.0, 0.75]
        clipped = re.findall(r'fill-opacity="([\d.]+)"', self.draw(limits=(0.4, 0.6)))
        assert [float(x) for x in clipped] == [0.0, 0.5, 1.0, 0.0]

    def test_many_layers_and_long_labels_fit_a_phone(self) -> None:
        text = str(
            heatmap([[0.5] * 48] * 3, labels=["a" * 60, "b", ""], kind="attn", title="t", limits=(0, 1), percent=False)
        )
        assert int(re.search(r'svg role[^>]* width="(\d+)"', text)[1]) <= WIDTH + 2  # type: ignore[index]
        assert "0.500" in html.unescape(text)


def test_the_page_draws_figures_only_if_asked(tmp_path: Path) -> None:
    write_run(tmp_path / "r", range(3))
    found = studies(tmp_path)
    without = write_page(found, [], [], tmp_path / "a.html").read_text(encoding="utf-8")
    with_figures = write_page(found, [], [], tmp_path / "b.html", draw=True).read_text(encoding="utf-8")
    assert 'id="figures"' not in without
    assert with_figures.count('<svg role="img"') >= 7
    assert "<img" not in with_figures
    assert not re.search(r"<[^>]+\sstyle=", with_figures.split("<body>")[1].split('<script type="application/json"')[0])
