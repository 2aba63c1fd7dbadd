"""Cases beyond the page's sample in files beside it: what they hold, how many there are, that a browser finds them."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser, browser, needs_browser
from page_runs_made_up import EVIL, change_rows, studies, write_editors

from romexp.reporting.page import case_files
from romexp.reporting.page.render import write_page


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    """One for all tests."""
    with browser() as one:
        yield one


def page_of(root: Path, *, n: int = 30, sample: int = 4) -> Path:
    write_editors(root / "runs", n=n)
    hostile = {"requested_rewrite": {"subject": EVIL, "target_new": "\u2028</script>"}}
    for name in ("ft0", "rome0"):
        change_rows(root / "runs" / name, {n - 1: hostile})
    return write_page(studies(root / "runs"), [], [], root / "page.html", most_cases=sample)


def policy(page: Path) -> str:
    return html.unescape(page.read_text(encoding="utf-8").split("<title>")[0])


def content(file: Path) -> list[Any]:
    """The arguments of the file's one call."""
    found = re.fullmatch(r"takeCases\(\.\.\.(\[.*\])\);\n", file.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_all_cases_are_in_the_files_and_a_sample_in_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_files, "IN_FILE", 8)
    page = page_of(tmp_path)
    files = sorted((tmp_path / "page_cases").iterdir())
    (index,) = [content(file) for file in files if "index" in file.name]
    parts = {part: cases for _, part, cases in (content(file) for file in files if "index" not in file.name)}
    assert [len(parts[number]) for number in sorted(parts)] == [8, 8, 8, 6]
    numbers = [case["id"] for number in sorted(parts) for case in parts[number]]
    assert numbers == [number for number, *_ in index[2]] == list(range(30))
    assert parts[3][-1]["subject"] == EVIL
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    (study,) = json.loads(found[1])  # type: ignore[index]
    assert [case["id"] for case in study["cases"]] == [0, 1, 2, 3]
    assert (study["held"], study["total"], study["folder"]) == (30, 30, "page_cases")
    assert study["cases"][2] == parts[0][2]


def test_few_cases_need_no_files_and_the_page_allows_no_scripts_beside_it(tmp_path: Path) -> None:
    page = page_of(tmp_path / "few", n=3)
    assert not (tmp_path / "few" / "page_cases").exists()
    assert "'self'" not in policy(page)
    assert "'self'" in policy(page_of(tmp_path / "many", n=30))


def test_a_large_study_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_files, "MOST_SIDES", 30)  # two editors and the unedited model: 10 cases
    page = page_of(tmp_path)
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    (study,) = json.loads(found[1])  # type: ignore[index]
    assert (study["held"], study["total"]) == (10, 30)


def wait_for(tab: Browser, script: str, wanted: object) -> None:
    for _ in range(100):
        if tab.run(script) == wanted:
            return
        time.sleep(0.03)
    assert tab.run(script) == wanted


SUBJECT = "(document.querySelector('#case h3') || {}).textContent"
LISTED = "document.querySelectorAll('#case-list a').length"


@needs_browser
class TestInABrowser:
    def test_nothing_is_read_before_it_is_asked_for(self, tab: Browser, tmp_path: Path) -> None:
        page = page_of(tmp_path)
        tab.open(page, width=390)
        assert [a for a in tab.requests if not a.startswith("data:")] == [page.resolve().as_uri()]
        assert tab.run(LISTED) == 4
        assert "the first of 30" in tab.run("document.getElementById('case-count').textContent")

    def test_the_list_of_all_cases_and_one_of_them(self, tab: Browser, tmp_path: Path) -> None:
        tab.open(page_of(tmp_path))
        tab.run("document.getElementById('case-all').click()")
        wait_for(tab, LISTED, 30)
        tab.run("document.querySelectorAll('#case-list a')[20].click()")
        wait_for(tab, SUBJECT, "subject 20")
        assert "P(o*)" in tab.run("document.querySelector('#case details summary').textContent")
        assert tab.complaints == []

    def test_an_address_and_a_search_find_what_is_beside_the_page(self, tab: Browser, tmp_path: Path) -> None:
        page = page_of(tmp_path)
        tab.open(page, "#case=25")
        wait_for(tab, SUBJECT, "subject 25")
        tab.open(page, "#find=subject+17")
        wait_for(tab, SUBJECT, "subject 17")
        tab.open(page, "#case=29")
        wait_for(tab, SUBJECT, EVIL)
        assert tab.run("document.title") == "romexp results"
        assert tab.run("document.querySelectorAll('img[src=x], #case script').length") == 0
        assert tab.complaints == []

    def test_a_page_without_its_files_says_so(self, tab: Browser, tmp_path: Path) -> None:
        page = page_of(tmp_path)
        for file in (tmp_path / "page_cases").iterdir():
            file.unlink()
        tab.open(page)
        tab.run("document.getElementById('case-all').click()")
        wait_for(tab, "document.getElementById('case-all').hidden", True)
        said = tab.run("document.getElementById('case-count').textContent")
        assert "is not beside this page, which holds 4 of 30 cases" in said
        assert tab.run(SUBJECT) == "subject 0"
