"""The questionnaire in a browser: filled in, saved, loaded again. Skips without Chromium."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser, browser, needs_browser
from human_cases import answers, questionnaire, write
from selenium.webdriver import Keys

from romexp.human_eval.answers import read_answers
from romexp.human_eval.questionnaire import questionnaire_page

pytestmark = needs_browser
ASKED = questionnaire(cases=6, participants=3, per_participant=2)


@pytest.fixture(scope="module")
def _tab() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture
def tab(_tab: Browser, tmp_path: Path) -> Iterator[Browser]:
    """The page, opened for the first time. Complaints of the browser are failures."""
    page = tmp_path / "page.html"
    page.write_text(questionnaire_page(ASKED))
    _tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    _tab.open(page)
    _tab.run("localStorage.clear()")
    open_with_stored(_tab, page, "{}")
    yield _tab
    assert _tab.complaints == []
    assert [address for address in _tab.requests if not address.startswith(("file:", "blob:"))] == []


def stored(tab: Browser) -> str:
    """What pages keep in this browser."""
    return tab.run("JSON.stringify(Object.fromEntries(Object.entries(localStorage).sort()))")


def open_with_stored(tab: Browser, page: Path, content: str) -> None:
    """Open a page that finds this stored. Chromium hands what one page stored to the next one when it has the time."""
    deadline = time.monotonic() + 120
    tab.open(page)
    while stored(tab) != content:
        assert time.monotonic() < deadline, f"stored are {stored(tab)}, not {content}"
        tab.open(page)


def begin(tab: Browser, participant: int) -> None:
    tab.run(f"document.getElementById('participant').value = {participant}")
    press(tab, "#start button")


def press(tab: Browser, selector: str) -> None:
    tab.run(f"document.querySelector({selector!r}).click()")
    tab.settle()


def rank(tab: Browser, measure: str, text: int, rank: int) -> None:
    tab.run(f"document.getElementsByName('{measure}-{text}')[{rank - 1}].click()")


def ranks(tab: Browser, measure: str) -> list[int]:
    chosen = "[...document.querySelectorAll('#case input:checked')].filter((r) => r.name.startsWith('{}'))"
    return tab.run(chosen.replace("{}", measure) + ".map((r) => Number(r.value))")


def text(tab: Browser, selector: str) -> str:
    return tab.run(f"document.querySelector({selector!r}).textContent")


def saved(tab: Browser, folder: Path) -> dict[str, Any]:
    """What the page puts into a file."""
    press(tab, "#save")
    deadline = time.monotonic() + 120
    while not (files := list(folder.glob("answers-*.json"))):
        assert time.monotonic() < deadline, "no file was saved"
        time.sleep(0.05)
    return json.loads(files[0].read_text())


def load(tab: Browser, content: str) -> None:
    tab.run(
        "(async () => { const files = new DataTransfer(); const field = document.getElementById('file');"
        f"files.items.add(new File([{json.dumps(content)}], 'mine.json')); field.files = files.files;"
        "field.dispatchEvent(new Event('change')); await field.files[0].text(); })()"
    )
    tab.settle()


def test_a_filled_page_gives_a_file_that_scores(tab: Browser, tmp_path: Path) -> None:
    begin(tab, 5)
    shown = []
    for _ in range(2):
        shown.append(tab.run("[...document.querySelectorAll('#case article p')].map((p) => p.textContent)"))
        rank(tab, "consistency", 0, 3)
        rank(tab, "consistency", 1, 1)
        rank(tab, "fluency", 2, 1)
        rank(tab, "fluency", 0, 2)
        assert (ranks(tab, "consistency"), ranks(tab, "fluency")) == ([3, 1, 2], [2, 3, 1]), "the last one follows"
        press(tab, "#next")
    plan = ASKED.plan[(5 - 1) % 3]
    assert shown == [list(ASKED.items[number - 1].texts) for number in plan], "markup in texts is text"
    assert text(tab, "#count") == "2 of 2 answered"
    content = saved(tab, tmp_path)
    assert "please send this file back" in text(tab, "#status")
    read = read_answers([write(tmp_path / "back", content)], ASKED.key())
    assert read.set_aside == ()
    assert {ranking.participant for ranking in read.rankings} == {5}
    first = ASKED.items[plan[0] - 1]
    (found,) = [r for r in read.rankings if (r.case_id, r.measure) == (first.case_id, "consistency")]
    assert found.ranks == dict(zip(first.order, (3, 1, 2), strict=True))


def test_a_rank_moves_and_is_never_given_twice(tab: Browser) -> None:
    begin(tab, 1)
    rank(tab, "fluency", 0, 1)
    rank(tab, "fluency", 1, 2)
    assert ranks(tab, "fluency") == [1, 2, 3]
    rank(tab, "fluency", 2, 1)
    assert ranks(tab, "fluency") == [3, 2, 1]
    assert ranks(tab, "consistency") == []
    assert text(tab, "#ranks") == "fluency: text A 3, text B 2, text C 1", "for those who do not see it"
    assert text(tab, "#count") == "0 of 2 answered"


def test_work_goes_on_in_the_same_browser(tab: Browser, tmp_path: Path) -> None:
    begin(tab, 2)
    for measure in ("consistency", "fluency"):
        rank(tab, measure, 0, 1)
        rank(tab, measure, 1, 3)
    kept = stored(tab)
    assert kept != "{}"
    open_with_stored(tab, tmp_path / "page.html", kept)
    assert tab.run("document.getElementById('participant').value") == "2"
    press(tab, "#start button")
    assert text(tab, "#count") == "1 of 2 answered"
    assert text(tab, "#case h2").startswith("Statement 2 of 2"), "where something is open"
    press(tab, "#previous")
    assert ranks(tab, "fluency") == [1, 3, 2]
    tab.open(tmp_path / "page.html", "?participant=3")
    press(tab, "#start button")
    assert text(tab, "#count") == "0 of 2 answered", "another participant's answers are not shown"


def test_work_goes_on_from_a_file(tab: Browser, tmp_path: Path) -> None:
    whole = answers(ASKED.key(), 2)
    first, second = (str(number) for number in ASKED.plan[1])
    load(tab, "nonsense")
    assert "not a file of answers" in text(tab, "#status")
    load(tab, json.dumps(whole | {"questionnaire": "0" * 12}))
    assert "another questionnaire" in text(tab, "#status")
    load(tab, json.dumps(whole | {"rankings": {first: whole["rankings"][first]}}))
    assert text(tab, "#count") == "1 of 2 answered"
    content = saved(tab, tmp_path)
    assert content["participant"] == 2
    assert content["rankings"] == {first: whole["rankings"][first]}
    assert "1 of 2 are still open" in text(tab, "#status")
    bad = {"consistency": [1, 1, 9], "fluency": [1, 2, 3]}
    tab.open(tmp_path / "page.html")
    load(tab, json.dumps(whole | {"rankings": {first: bad, second: whole["rankings"][second]}}))
    assert text(tab, "#count") == "1 of 2 answered", "ranks that cannot be are not taken over"


def test_the_keyboard_is_enough(tab: Browser) -> None:
    tab.run("document.getElementById('participant').focus()")
    tab.press("1" + Keys.ENTER)
    assert tab.run("document.activeElement.id") == "case"
    tab.press(Keys.TAB)
    assert tab.run("document.activeElement.name") == "consistency-0"
    tab.press(Keys.SPACE)
    assert ranks(tab, "consistency") == [1]


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(tab: Browser, tmp_path: Path, dark: bool) -> None:
    tab.open(tmp_path / "page.html", width=390, height=800, dark=dark)
    assert tab.run("document.documentElement.scrollWidth") == 390
    begin(tab, 1)
    assert tab.run("document.documentElement.scrollWidth") == 390
    sizes = tab.run("[...document.querySelectorAll('.rank')].map((r) => r.getBoundingClientRect().height)")
    assert min(sizes) >= 44, "a finger hits them"
    paper = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark
