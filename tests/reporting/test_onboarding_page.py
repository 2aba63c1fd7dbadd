"""The page of task=onboard: what it says, that texts are texts, and that a phone shows it whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser, needs_browser, tab

from romexp.reporting.page.onboarding import onboarding_page

__all__ = ["tab"]  # a fixture

HOSTILE = "<script>alert(1)</script>"


def rate(mean: float) -> dict[str, Any]:
    return {"mean": mean, "half_width": 5.0, "std": 1.0, "n": 20, "interval": [mean - 6, mean + 4]}


def entry(value: float, score: float, *, chosen: bool) -> dict[str, Any]:
    gap = {"mean": 80.0 - score, "half_width": None, "interval": [-3.0, 9.0], "n": 20}
    post = {name: rate(score) for name in ("S", "ES", "PS", "NS", "PM")}
    command = f"romexp editor.layer={value}"
    return {"value": value, "post": post, "behind": None if chosen else gap, "alike": not chosen, "command": command}


def page(model: str = "my-model") -> str:
    summary = {
        "S": rate(80.0),
        "pre": {name: rate(20.0) for name in ("S", "ES", "PS", "NS")},
        "chosen": {"layer": 5, "v_lr": 0.5},
        "layers": [entry(2, 71.5, chosen=False), entry(5, 80.0, chosen=True), entry(9, 76.0, chosen=False)],
        "rates": [entry(0.5, 80.0, chosen=True)],
        "rate_field": "v_lr",
        "records": "20 records of world",
        "measured": "2026-11-26T10:00:00+00:00",
        "sentences": ["In all.", "By layer.", "By rate.", "These edits do not help."],
        "command": "romexp --config-dir /a/very/long/folder/of/results/that/must/be/wrapped/conf model=my-model",
        "checks": [{"name": "k·W of layer 2", "measured": 2e-7, "limit": 1e-4, "unit": "", "reason": "…"}],
        "tokenizer": {"before every text": f"'{HOSTILE}'"},
    }
    return onboarding_page(summary, model=model, editor=("rome", "ROME"), files=["/a/conf/model/my-model.yaml"])


def test_it_says_what_was_measured() -> None:
    text = page()
    assert text == page(), "equal input gives equal text"
    for said in ("S 80.0", "74.0 to 84.0", "layer=5", "v_lr=0.5", "20 records of world", "romexp editor.layer=2"):
        assert said in text, said
    assert "-3.0 to 9.0" in text, "the paired difference"
    assert text.count("<svg") == 4, "four metrics by layer, and no figure of the one learning rate"
    assert "2e-07" in text
    assert "These edits do not help." in text


def test_texts_are_no_html() -> None:
    text = page(model=HOSTILE)
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert not re.findall(r'(?:src|href)="(?!#)', text)


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_phone_shows_it_whole(tab: Browser, tmp_path: Path, width: int) -> None:
    path = tmp_path / "onboard.html"
    path.write_text(page())
    tab.open(path, width=width, height=700)
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("document.querySelector('.answer-line').getBoundingClientRect().bottom < innerHeight")
    panel = "document.querySelector('.panels svg').getBoundingClientRect()"
    assert tab.run(f"{panel}.right") <= width
    assert not [request for request in tab.requests if not request.startswith(("file:", "data:"))]
