"""Editors of a study are compared on the cases that they share, and what is left out is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_runs_made_up import GENERATING, no_difference, studies, write_texts
from report_runs import write_run

from romexp.analysis.shared_cases import on_shared_cases, shared_cases
from romexp.analysis.studies import Study
from romexp.reporting.figures.draw_all import drawings
from romexp.reporting.page.cases import case_data
from romexp.reporting.page.render import write_page
from romexp.reporting.tables.paper import paper_table
from romexp.reporting.tables.sweep import sweep_table


def ids(*ranges: range) -> list[frozenset[int]]:
    return [frozenset(each) for each in ranges]


@pytest.mark.parametrize(
    ("measured", "shared"),
    [
        (ids(range(5), range(5)), range(5)),
        (ids(range(200), range(100, 200), range(100, 200)), range(100, 200)),
        (ids(range(20), range(10)), range(10)),
        (ids(range(30), range(20), range(10)), range(10)),
        (ids(range(100), range(100), range(60)), range(60)),  # one that is still running
        (ids(range(100), range(100), range(100), range(2)), range(100)),  # an attempt on two cases
        (ids(range(6), range(4, 10), range(2, 8)), range(4, 6)),  # an intersection that no editor alone has
        (ids(range(5), range(5, 9)), ()),
        (ids(range(5)), ()),
    ],
)
def test_the_cases_that_the_most_comparisons_have(measured: list[frozenset[int]], shared: range) -> None:
    assert shared_cases(measured) == set(shared)
    assert shared_cases(measured[::-1]) == set(shared)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """After `romexp` and `romexp -cn editors_minifact`, in small: ROME has twice the cases of the others."""
    write_run(tmp_path / "a", range(10), selection={"limit": 10})
    for editor in ("rome", "ft", "ft_l"):
        folder = write_run(tmp_path / f"b{editor}", range(10, 20), editor=editor, selection={"limit": 10, "offset": 10})
        if editor == "ft":
            assert folder.name == "bft"
    (found,) = studies(tmp_path)
    return found


def test_every_row_is_over_the_same_cases(study: Study) -> None:
    assert {entry.label: entry.n_cases for entry in study.entries} == {"FT": 10, "FT+L": 10, "ROME": 20}
    cut = on_shared_cases(study)
    assert {entry.n_cases for entry in cut.entries} == {10}
    assert {result.case_id for entry in cut.entries for result in entry.results} == set(range(10, 20))
    assert cut.unedited["n_cases"] == 10
    assert cut.left_out == ("compared on the 10 cases that these editors share; left out: 10 more of ROME",)
    assert on_shared_cases(cut) is not study
    assert on_shared_cases(cut).left_out == cut.left_out, "nothing more is left out"


def test_tables_and_figures_say_what_is_left_out(study: Study) -> None:
    (block,) = paper_table(4, [study], difference=no_difference, only_begun=True).blocks
    assert [line.cells[1].text for line in block.lines] == ["10"] * 4
    assert "left out: 10 more of ROME" in block.remarks[0]
    own = paper_table(4, [study], difference=no_difference, only_begun=True, shared=False).blocks[0]
    assert [line.cells[1].text for line in own.lines] == ["20", "10", "10", "20"]
    assert own.remarks == ()
    assert all("10 cases" in caption for _, caption, _ in drawings(study))


def test_the_page_begins_with_shared_cases_and_holds_the_others_too(study: Study, tmp_path: Path) -> None:
    data = case_data(study, identifier="x", most_cases=12, compared=on_shared_cases(study))
    assert [case["id"] for case in data["cases"]] == [*range(10, 20), 0, 1]
    assert all(None not in case["post"] for case in data["cases"][:10])
    assert data["cases"][10]["post"].count(None) == 2
    page = write_page([study], [], [], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "left out: 10 more of ROME" in page
    assert page.count(">10 of 20</td>") == 1


def test_an_attempt_on_a_few_cases_stands_apart(tmp_path: Path) -> None:
    for editor in ("rome", "ft", "ft_l"):
        write_run(tmp_path / editor, range(40), editor=editor)
    write_run(tmp_path / "kn", range(1), editor="kn", strength=9.0)
    (study,) = studies(tmp_path)
    cut = on_shared_cases(study)
    assert {entry.label: entry.n_cases for entry in cut.entries} == {"FT": 40, "FT+L": 40, "KN": 1, "ROME": 40}
    assert cut.left_out == ("not compared, since its cases are others: KN with 1 case; the others share 40 cases",)
    assert cut.unedited["n_cases"] == 40
    (block,) = paper_table(4, [study], difference=no_difference, only_begun=True).blocks
    (row,) = (line for line in block.lines if line.cells[0].text == "KN, other cases")
    assert row.cells[3].text.startswith("100.0 (")
    assert not any(cell.mark == "best" for cell in row.cells), "it competes with none"
    assert any(cell.mark == "best" for line in block.lines for cell in line.cells)


def test_without_a_shared_case_nothing_is_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(5), selection={"limit": 5})
    write_run(tmp_path / "b", range(5, 9), editor="ft", selection={"offset": 5})
    (study,) = studies(tmp_path)
    (block,) = paper_table(4, [study], difference=no_difference, only_begun=True).blocks
    assert block.remarks == ("no case is shared by two editors: each has its own",)
    assert {cell.mark for line in block.lines for cell in line.cells} <= {"", "failure"}
    assert [line.cells[1].text for line in block.lines] == ["9", "4", "5"]


def test_a_sweep_shares_its_own_cases(tmp_path: Path) -> None:
    """The cases of other editors do not count there."""
    for layer, n in ((1, 12), (2, 12), (3, 8)):
        write_run(tmp_path / f"l{layer}", range(n), settings={"layer": layer})
    write_run(tmp_path / "ft", range(4), editor="ft", identity=GENERATING)
    write_texts(tmp_path / "ft", range(4), editor="ft")
    (block,) = sweep_table(list(studies(tmp_path))).blocks
    assert [line.cells[2].text for line in block.lines] == ["8", "8", "8"]
    assert "left out: 4 more of ROME (layer=1), ROME (layer=2)" in block.remarks[0]


def test_rows_beside_the_papers_keep_all_their_cases(tmp_path: Path) -> None:
    for editor, n in (("rome", 12), ("ft", 4)):
        write_run(tmp_path / editor, range(n), model="gpt2-xl", dataset="counterfact", editor=editor)
    block = paper_table(4, studies(tmp_path), difference=no_difference).blocks[0]
    measured = {line.cells[0].text: line for line in block.lines if line.role == "measured"}
    assert {label: line.cells[1].text for label, line in measured.items()} == {
        "unedited": "12",
        "FT": "4",
        "ROME": "12",
    }
    assert not any(cell.mark == "best" for line in measured.values() for cell in line.cells)
    assert "no value is marked as the highest" in block.remarks[0]
