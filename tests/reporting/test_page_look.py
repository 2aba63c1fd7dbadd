"""What a reader sees: a number on a phone's first screen, tables that say they are cut, heat maps under a finger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser, needs_browser, tab
from page_runs_made_up import studies, write_editors

from romexp.reporting.page.render import write_page
from romexp.reporting.tables.traces import trace_studies
from romexp.results.find import find_runs

pytestmark = needs_browser
__all__ = ["tab"]  # a fixture

MANY = {"ft": 1.0, "ft_l": 1.5, "kn": 0.5, "ke": 2.0, "mend": 3.0, "rome": 4.0, "ft_attn": 2.5}
HIDDEN = [[0.1, 0.2, 0.3], [0.8, 0.7, 0.1], [0.1, 0.1, 0.9]]


def trace_row(number: int) -> dict[str, Any]:
    return {
        "case_id": number,
        "prompt": "Ada lives in",
        "subject": "Ada",
        "tokens": ["A", "da", " in"],
        "subject_range": [0, 2],
        "answer": " Rome",
        "high_score": 0.9,
        "low_score": 0.1,
        "correct_prediction": True,
        "hidden": HIDDEN,
    }


def write_traces(folder: Path) -> None:
    folder.mkdir(parents=True)
    identity = {"task": "trace", "tracer": {"window": 3}}
    names = {"task": "trace", "model": "minifact", "dataset": "minifact_known"}
    (folder / "manifest.json").write_text(json.dumps({"identity": identity, "names": names, "hash": "t"}))
    (folder / "cases.jsonl").write_text("".join(json.dumps(trace_row(i)) + "\n" for i in range(3)))
    (folder / "status").write_text("done\n")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("look")
    write_editors(root / "edits", editors=MANY, n=5)
    write_traces(root / "trace")
    runs = find_runs([root / "trace"]).runs
    traces, problems = trace_studies(runs)
    assert problems == []
    return write_page(studies(root / "edits"), [], [], root / "page.html", others=runs, traces=traces, draw=True)


def test_the_winners_score_is_on_a_phones_first_screen(tab: Browser, path: Path) -> None:
    tab.open(path, width=390, height=700)
    shown = "document.querySelector('{}').getBoundingClientRect().bottom <= innerHeight"
    assert "S = " in tab.run("document.querySelector('#winner .headline').textContent")
    assert tab.run(shown.format("#winner .headline"))
    assert tab.run(shown.format("#winner tbody tr td b"))
    assert not tab.run(shown.format("#results"))  # the control


def test_a_cut_table_says_so_and_keeps_its_first_column(tab: Browser, path: Path) -> None:
    tab.open(path, width=390)
    box = "document.querySelector('#winner .scroll')"
    assert tab.run(f"{box}.classList.contains('more-right')")
    hint = f"{box}.previousElementSibling.textContent"
    assert "more columns →" in tab.run(hint)
    left = f"{box}.querySelector('tbody th').getBoundingClientRect().left"
    before = tab.run(left)
    tab.run(f"{box}.scrollLeft = 10000")
    tab.settle()
    assert tab.run(left) == pytest.approx(before, abs=1.5)
    assert not tab.run(f"{box}.classList.contains('more-right')")
    assert "more column" not in tab.run(hint)
    # The control: on a wide screen a small table is not cut.
    tab.open(path, width=1900)
    assert tab.run("[...document.querySelectorAll('#winner .cut')].filter((p) => !p.hidden).length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_figures_fit_a_phone_and_have_its_colours(tab: Browser, path: Path, dark: bool) -> None:
    tab.open(path, width=390, dark=dark)
    assert tab.run("document.querySelectorAll('#figures img').length") == 0
    assert tab.run("document.querySelectorAll('#figures svg').length") > 10
    fits = "[...document.querySelectorAll('#figures svg')].every((s) => s.getBoundingClientRect().right <= innerWidth)"
    assert tab.run(fits)
    # Letters are not shrunk below nine pixels.
    scale = "[...document.querySelectorAll('#figures svg')].map((s) => s.getBoundingClientRect().width / s.viewBox.baseVal.width)"  # noqa: E501
    assert min(tab.run(scale)) > 0.95
    colour = tab.run("getComputedStyle(document.querySelector('#figures svg text')).fill")
    ink = sum(map(int, colour[4:-1].split(","))) / 3
    assert ink > 200 if dark else ink < 60
    assert tab.run("document.documentElement.scrollWidth") == 390


class TestHeatMaps:
    MAP = "[...document.querySelectorAll('.heat')].find((f) => JSON.parse(f.dataset.heat).rows[1].startsWith('da'))"

    def at(self, row: float, column: float) -> str:
        """The middle of a cell on the screen."""
        return f"""(() => {{ const f = {self.MAP}, d = JSON.parse(f.dataset.heat), s = f.querySelector('svg');
            s.scrollIntoView({{block: 'center'}}); const r = s.getBoundingClientRect();
            return [r.left + d.left + d.cell * ({column} + 0.5), r.top + d.height * ({row} + 0.5)] }})()"""

    def said(self, tab: Browser) -> str:
        return tab.run(f"{self.MAP}.querySelector('output').textContent")

    def test_on_hover(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        assert self.said(tab).startswith("no colour: 10.0 %")
        x, y = tab.run(self.at(1, 0))
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        tab.settle()
        assert self.said(tab) == "da*, layer 0: 80.0 %"
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
        tab.settle()
        assert self.said(tab).startswith("no colour")

    def test_on_touch(self, tab: Browser, path: Path) -> None:
        tab.open(path, width=390)
        x, y = tab.run(self.at(2, 2))
        tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        tab.settle()
        assert self.said(tab) == "in, layer 2: 90.0 %"

    def test_by_the_arrow_keys(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        press = "{}.querySelector('svg').dispatchEvent(new KeyboardEvent('keydown', {{key: '{}', cancelable: true}}))"
        for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
            tab.run(press.format(self.MAP, key))
        assert self.said(tab) == "da*, layer 1: 70.0 %"


def test_probabilities_are_on_a_logarithmic_scale_with_the_change_marked(tab: Browser, path: Path) -> None:
    tab.open(path, "#case=0")
    change = "document.querySelector('#case tbody tr:nth-child(2) td svg')"
    assert tab.run(f"{change}.querySelectorAll('.from, .to, .way').length") == 3
    assert " before, " in tab.run(f"{change}.getAttribute('aria-label')")
    assert tab.run("document.querySelector('#case tbody tr td svg').querySelectorAll('.from').length") == 0  # unedited
    places = "[1, 1e-2, 1e-4].map((p) => Number(change(null, p, -4, 'new').querySelector('.to').getAttribute('cx')))"
    high, middle, low = tab.run(places)
    assert (high - middle, middle - low) == pytest.approx((56, 56))
    assert "Logarithmic scale from 10" in tab.run("document.getElementById('case-scale').textContent")
    assert tab.run("probability(4.14e-7)") == "4.1 × 10⁻⁷"
