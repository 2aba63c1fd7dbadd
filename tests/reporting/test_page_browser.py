"""The page of results in a browser: sorting, filtering, browsing, small and dark screens. Skips without Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import Browser, needs_browser, tab
from page_runs_made_up import ASKED, EVIL, TABLE, studies, write_everything
from selenium.webdriver import Keys

from romexp.reporting.page.render import write_page
from romexp.results.find import find_runs

pytestmark = needs_browser
__all__ = ["tab"]  # a fixture

LABELS = (
    "[...document.querySelectorAll('#{table} tbody tr')].filter((r) => !r.hidden).map((r) => r.cells[0].textContent)"
)
SORTING = "[...document.querySelectorAll('#{table} thead tr:last-child th')].map((h) => h.getAttribute('aria-sort'))"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    write_everything(root)
    others = [run for run in find_runs([root]).runs if run.task != "edit"]
    return write_page(studies(root), [TABLE], [], root / "page.html", others=others)


def table_of(tab: Browser, *, entries: int) -> str:
    """The id of the results' table with so many editors."""
    script = (
        f"[...document.querySelectorAll('#results table')].find((t) => t.tBodies[0].rows.length === {entries + 1}).id"
    )
    return tab.run(script)


def labels(tab: Browser, table: str) -> list[str]:
    return tab.run(LABELS.replace("{table}", table))


def click(tab: Browser, selector: str) -> None:
    tab.run(f"document.querySelector({selector!r}).click()")
    tab.settle()


def enter(tab: Browser, field: str, text: str, event: str = "input") -> None:
    tab.run(
        f"{{const f = document.getElementById({field!r}); f.value = {text!r}; f.dispatchEvent(new Event({event!r}))}}"
    )
    tab.settle()


def written(tab: Browser, selector: str) -> str:
    return " ".join(tab.run(f"document.querySelector({selector!r}).innerText").split())


def test_asks_for_nothing_and_complains_of_nothing(tab: Browser, path: Path) -> None:
    tab.open(path)
    assert [address for address in tab.requests if not address.startswith("data:")] == [path.resolve().as_uri()]
    assert tab.complaints == []


def test_the_policy_stops_what_does_not_belong_to_the_page(tab: Browser, path: Path) -> None:
    """The control of the test above: a script and a request that someone smuggles in do not run, and are noticed."""
    tab.open(path)
    tab.run(
        "{const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s)}"
    )
    tab.run("{const i = new Image(); i.src = 'https://example.invalid/x.png'; document.body.append(i)}")
    tab.settle()
    assert tab.run("document.title") == "romexp results"
    assert len(tab.complaints) == 2


class TestSorting:
    def test_by_a_click_down_up_and_back(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        table = table_of(tab, entries=6)
        before = labels(tab, table)
        numbers = f"[...document.querySelectorAll('#{table} tbody tr')].map((r) => Number(r.cells[3].dataset.value))"
        button = f"#{table} thead th:nth-child(4) button"
        click(tab, button)
        down = tab.run(numbers)
        assert down == sorted(down, reverse=True)
        assert tab.run(SORTING.replace("{table}", table))[3] == "descending"
        click(tab, button)
        assert tab.run(numbers) == down[::-1]
        assert tab.run(SORTING.replace("{table}", table)).count("ascending") == 1
        click(tab, button)
        assert labels(tab, table) == before
        assert set(tab.run(SORTING.replace("{table}", table))) == {"none"}

    def test_by_keyboard(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        table = table_of(tab, entries=2)
        tab.run(f"document.querySelector('#{table} thead th button').focus()")
        tab.press(Keys.ENTER)
        assert labels(tab, table) == ["FT", "ROME", "unedited"]
        assert tab.run("document.activeElement.textContent") == "Editor"

    def test_from_the_address(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        table = table_of(tab, entries=2)
        tab.open(path, f"#sort={table}:0:descending")
        assert labels(tab, table) == ["unedited", "ROME", "FT"]

    def test_published_lines_stay_below_theirs(self, tab: Browser, path: Path) -> None:
        for direction, order in (("ascending", [2, 0, 1]), ("descending", [0, 1, 2])):
            tab.open(path, f"#sort=table-0:1:{direction}")
            names = ["ROME", "published", "KE, published"]
            assert labels(tab, "table-0") == ["GPT-2 XL", *(names[i] for i in order)]


class TestFilters:
    def test_words_leave_the_rows_that_have_them(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        sweep = table_of(tab, entries=6)
        enter(tab, "filter-text", "LAYER=1 last")
        assert labels(tab, sweep) == ["ROME (layer=1, fact_token=last)", "ROME (layer=1, fact_token=subject_last)"]
        assert "of" in written(tab, "#filter-count")
        assert tab.run("location.hash") == "#q=LAYER%3D1+last"
        click(tab, "#filter-reset")
        assert len(labels(tab, sweep)) == 7
        assert tab.run("location.hash") == ""

    def test_an_editor_is_shown_beside_the_unedited_model(self, tab: Browser, path: Path) -> None:
        tab.open(path, "#editor=FT")
        assert labels(tab, table_of(tab, entries=2)) == ["unedited", "FT"]
        assert tab.run(f"document.getElementById('{table_of(tab, entries=6)}').closest('.scroll').hidden")
        assert tab.run("document.getElementById('table-0-box').hidden")
        assert tab.run("[...document.querySelectorAll('#runs > details')].filter((r) => !r.hidden).length") == 1

    def test_the_reports_tables_follow(self, tab: Browser, path: Path) -> None:
        shown = "document.getElementById('table-0-box').hidden"
        rows = "[...document.querySelectorAll('#table-0 tr[data-role]')].filter((r) => !r.hidden).length"
        for view, hidden in (("model=gpt2-xl", False), ("model=minifact", True), ("dataset=zsre", True)):
            tab.open(path, f"#{view}")
            assert tab.run(shown) is hidden
        tab.open(path, "#model=gpt2-xl&dataset=counterfact&editor=ROME")
        assert tab.run(rows) == 2  # with the published values
        tab.open(path, "#editor=KE")
        assert tab.run(rows) == 1  # published alone, below another editor's line but not its own

    def test_headings_of_runs_go_with_them(self, tab: Browser, path: Path) -> None:
        shown = "[...document.querySelectorAll('#runs > h3')].filter((h) => !h.hidden).length"
        tab.open(path)
        every = tab.run(shown)
        tab.open(path, "#dataset=zsre")
        assert (tab.run(shown), every) == (1, 4)

    def test_data_by_the_menu(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        enter(tab, "filter-dataset", "zsre", "change")
        shown = "[...document.querySelectorAll('#results table')].filter((t) => !t.closest('.scroll').hidden).length"
        assert tab.run(shown) == 1
        assert tab.run("location.hash") == "#dataset=zsre"


class TestCases:
    def study(self, tab: Browser, entries: str) -> str:
        return tab.run(f"data.find((s) => s.entries.join() === {entries!r}).id")

    def test_an_address_shows_a_case(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        tab.open(path, f"#study={self.study(tab, 'FT,ROME')}&case=0&text=1")
        assert written(tab, "#case h3") == "subject 0"
        assert written(tab, "#case .fact") == "subject 0 is a instead of b"
        rome = written(tab, "#case tbody tr:nth-child(3)")
        assert "0.779 0.030 o* likelier" in rome
        assert written(tab, "#case .texts > div:nth-child(1)") == "unedited He likes b, papas and bananas."
        assert tab.run("[...document.querySelectorAll('#case .texts .new')].map((n) => n.textContent)") == ["a", "a"]
        assert tab.run("document.querySelector('#case-list [aria-current]').textContent").startswith("subject 0")

    def test_every_prompt_stands_beside_its_probabilities(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        study = self.study(tab, "FT,ROME")
        tab.open(path, f"#study={study}&case=0&text=1")
        prompts = "[...document.querySelectorAll('#case th.prompt')].map((h) => h.textContent)"
        asked = [text for kind in list(ASKED)[:3] for text in ASKED[kind]]  # attribute prompts were not measured
        assert tab.run(prompts) == asked
        assert written(tab, "#case .asked") == "“He likes”"
        tab.run("document.querySelector('#case details').open = true")
        tab.settle()
        first = "[...document.querySelector('#case th.prompt').closest('tr').cells].map((c) => c.textContent)"
        assert tab.run(first)[::3] == ["someone lives in", "0.779 / 0.030"]
        click(tab, "#case-next")
        assert tab.run("document.querySelector('#case details').open")  # stays from case to case
        tab.open(path, f"#study={study}&case=3")  # of an early run, which does not say what was asked
        assert tab.run(prompts)[:3] == ["edited prompt", "paraphrase 1", "paraphrase 2"]
        assert tab.run("document.querySelector('#case .asked')") is None

    def test_next_and_previous(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        tab.open(path, f"#study={self.study(tab, 'FT,ROME')}&case=2")
        click(tab, "#case-next")
        assert written(tab, "#case h3") == "subject 3"
        assert "case=3" in tab.run("location.hash")
        assert tab.run("document.getElementById('case-next').disabled")
        assert "not measured" in written(tab, "#case tbody tr:nth-child(3)")
        click(tab, "#case-previous")
        assert written(tab, "#case h3") == "subject 2"

    def test_what_texts_share_is_their_beginning(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        tab.open(path, f"#study={self.study(tab, 'FT,ROME')}&case=0")
        shared = "[...document.querySelectorAll('#case .shared')].map((n) => n.textContent)"
        assert tab.run(shared) == ["The home of someone is "] * 3

    def test_search_and_a_link(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        enter(tab, "case-search", "subject 2")
        assert tab.run("document.querySelectorAll('#case-list li').length") == 1
        assert written(tab, "#case h3") == "subject 2"
        enter(tab, "case-search", "nobody")
        assert written(tab, "#case") == "No case has these words."
        enter(tab, "case-search", "")
        tab.run("document.querySelector('#case-list li:nth-child(2) a').focus()")
        tab.press(Keys.ENTER)
        assert written(tab, "#case h3") == "subject 1"
        assert tab.run("document.activeElement.textContent").startswith("subject 1")  # the list was made anew

    def test_hostile_text_is_text(self, tab: Browser, path: Path) -> None:
        tab.open(path)
        tab.open(path, f"#study={tab.run('data.find((s) => s.kind === `zsre`).id')}&case=1")
        assert tab.run("document.querySelector('#case h3').textContent") == EVIL
        assert tab.run("document.querySelector('#case .fact ins').textContent") == EVIL
        assert tab.run("document.title") == "romexp results"
        assert tab.run("document.querySelectorAll('img[src=x], #cases script').length") == 0
        assert "tokens right" in written(tab, "#case table")
        assert tab.run("document.querySelector('#case th.prompt').textContent") == f"what of {EVIL} ?"
        assert tab.run("document.querySelector('#case .answer').textContent") == EVIL
        assert tab.complaints == []


def test_a_row_leads_to_its_run(tab: Browser, path: Path) -> None:
    tab.open(path)
    click(tab, "#results a[href^='#run-']")
    assert tab.run("[...document.querySelectorAll('#runs > details[open]')].length") == 1
    assert "Command" in written(tab, "#runs > details[open]")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_fits_every_screen_by_day_and_night(tab: Browser, path: Path, width: int, dark: bool) -> None:
    tab.open(path, "#case=0", width=width, dark=dark)
    tab.run("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    tab.settle()
    assert tab.run("document.documentElement.scrollWidth") == width
    boxes = "[...document.querySelectorAll('.scroll')].every((b) => b.getBoundingClientRect().right <= innerWidth)"
    assert tab.run(boxes)
    if width == 390:  # the control: there is something that had to be put in a box
        assert tab.run("[...document.querySelectorAll('.scroll')].some((b) => b.scrollWidth > b.clientWidth)")
    # No label runs into the numbers beside it.
    assert tab.run("[...document.querySelectorAll('th[scope=row]')].every((h) => h.scrollWidth <= h.clientWidth + 1)")
    colours = tab.run("(() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color] })()")
    background, ink = (sum(map(int, c[4:-1].split(","))) / 3 for c in colours)
    assert (background < 40 and ink > 200) if dark else (background > 240 and ink < 60)


def test_names_for_those_who_do_not_see_it(tab: Browser, path: Path) -> None:
    tab.open(path)
    unnamed = """[...document.querySelectorAll('input, select, button, img, [role=region], table.sortable')].filter(
        (e) => !(e.labels && e.labels.length) && !e.textContent.trim() && !e.alt && !e.getAttribute('aria-label') &&
        !e.getAttribute('aria-labelledby')).map((e) => e.outerHTML)"""
    assert tab.run(unnamed) == []
    broken = """[...document.querySelectorAll('[aria-labelledby]')].filter((e) =>
        !document.getElementById(e.getAttribute('aria-labelledby'))).length"""
    assert tab.run(broken) == 0
    assert tab.run("new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size") == tab.run(
        "document.querySelectorAll('[id]').length"
    )
    assert tab.run("document.documentElement.lang") == "en"


def test_without_any_result(tab: Browser, tmp_path: Path) -> None:
    tab.open(write_page([], [], [], tmp_path / "page.html"))
    assert "Not one run with a finished case was found." in written(tab, "main")
    assert tab.complaints == []
