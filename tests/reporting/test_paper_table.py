"""The paper's tables with our figures, the published ones and the difference; what is missing."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from page_runs_made_up import no_difference, studies
from report_runs import write_run

from romexp.analysis.metrics import COUNTERFACT
from romexp.reporting.tables.model import ReportTable
from romexp.reporting.tables.paper import paper_table
from romexp.reporting.tables.writers import to_csv


def record(table: ReportTable, editor: str) -> dict[str, str]:
    return next(row for row in csv.DictReader(io.StringIO(to_csv(table))) if row["editor"] == editor)


def test_ours_published_and_difference(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(40), model="gpt2-xl", dataset="counterfact", selection={"limit": 40})
    write_run(tmp_path / "b", range(40), model="gpt2-xl", dataset="counterfact", editor="ft", settings={"layer": 9})
    table = paper_table(
        4, studies(tmp_path), difference=lambda study, entry: "layer=9, the paper's 1" if entry.editor == "ft" else ""
    )
    assert [column.name for column in table.columns] == ["Editor", "Cases", *COUNTERFACT]
    assert [block.title for block in table.blocks] == ["GPT-2 XL (gpt2-xl, counterfact)", "GPT-J"]
    xl = table.blocks[0]
    labels = [(line.cells[0].text, line.role) for line in xl.lines]
    assert labels[:5] == [
        ("unedited", "measured"),
        ("published", "published"),
        ("difference", "difference"),
        ("FT, other settings", "measured"),  # no difference
        ("FT, published", "published"),
    ]
    assert labels[-3:] == [("ROME", "measured"), ("published", "published"), ("difference", "difference")]
    rome = record(table, "rome")
    assert float(rome["ES_published"]) == 100.0
    assert float(rome["ES_difference"]) == pytest.approx(float(rome["ES"]) - 100.0)
    assert rome["cases"] == "40"
    assert record(table, "kn")["ES"] == ""
    notes = "\n".join(xl.notes)
    assert "ROME: 40 of 7500 cases" in notes
    assert "FT: not compared, layer=9, the paper's 1" in notes
    assert "no run to compare: FT, FT+L, KN, KE, KE-CF, MEND, MEND-CF" in notes
    start = "romexp model=gpt2-xl dataset=counterfact"
    assert f"{start} editor=rome dataset.offset=40 dataset.limit=7460" in xl.commands
    assert f"{start} dataset.limit=7500 editor=ft_l" in xl.commands
    assert table.blocks[1].commands[0] == "romexp model=gpt-j-6b dataset=counterfact dataset.limit=2000 editor=ft"
    begun = paper_table(4, studies(tmp_path), difference=no_difference, only_begun=True)
    assert len(begun.blocks) == 1


def test_an_unfinished_run_goes_on_and_then_the_rest_is_asked_for(tmp_path: Path) -> None:
    place = {"model": "gpt2-medium", "dataset": "counterfact", "status": "running"}
    write_run(tmp_path / "a", range(20), selection={"limit": 50}, **place)  # type: ignore[arg-type]
    block = paper_table(5, studies(tmp_path), difference=no_difference, suffix=["outputs=o"], only_begun=True).blocks[0]
    start = "romexp model=gpt2-medium dataset=counterfact"
    assert block.commands == (
        f"{start} editor=rome dataset.limit=50",
        f"{start} editor=rome dataset.offset=50 dataset.limit=7450 outputs=o",
        f"{start} dataset.limit=7500 editor=ft_l outputs=o",
    )


def test_runs_on_other_data_stand_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0, 9000], model="gpt2-xl", dataset="mine")
    xl = paper_table(4, studies(tmp_path), difference=lambda study, entry: "other data than the paper's").blocks[0]
    assert [line.cells[0].text for line in xl.lines if line.role == "measured"] == ["unedited", "ROME, other data"]
    assert not any(line.role == "difference" for line in xl.lines)
    assert xl.lines[0].cells[1].text == "2"


def test_differences_beyond_both_intervals_are_starred(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(60), model="gpt2-xl", dataset="counterfact", strength=-1.0)
    (xl, _) = paper_table(4, studies(tmp_path), difference=no_difference).blocks
    line = xl.lines[-1]
    assert line.role == "difference"
    assert line.cells[3].text.startswith("-")
    assert line.cells[3].text.endswith("*")
    assert "*" not in line.cells[2].text  # S: the paper gives no interval
    assert line.cells[9].text == "–"  # GE was not measured


def test_only_no_difference_cases_count(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0, 1, 2, 1999, 2000, 2001], model="gpt-j-6b", dataset="counterfact")
    block = paper_table(4, studies(tmp_path), difference=no_difference).blocks[1]
    assert [line.cells[1].text for line in block.lines if line.role == "measured"] == ["4", "4"]
    assert any("first 2000" in note for note in block.notes)


def test_models_that_the_paper_does_not_have(tmp_path: Path) -> None:
    for editor, strength in (("ft", 4.0), ("ft_l", 0.5), ("rome", 3.0)):
        write_run(tmp_path / editor, range(50), editor=editor, strength=strength)
    write_run(tmp_path / "z", range(20), dataset="minifact_zsre", zsre=True)
    found = studies(tmp_path)
    table = paper_table(4, found, difference=no_difference, only_begun=True)
    (block,) = table.blocks
    assert {line.role for line in block.lines} == {"measured"}
    assert block.commands == ()
    assert paper_table(5, found, difference=no_difference, only_begun=True).blocks == ()
    (zsre,) = paper_table(1, found, difference=no_difference, only_begun=True).blocks
    assert zsre.title == "minifact, minifact_zsre (not in the paper)"
    cells = {line.cells[0].text: line.cells for line in block.lines}
    assert cells["FT"][3].mark == "best"  # ES
    assert cells["FT+L"][5].mark == "failure"  # PS
    assert all(cell.mark == "" for cell in cells["unedited"])


def test_the_editor_that_does_nothing_fails_at_nothing_and_competes_with_none(tmp_path: Path) -> None:
    write_run(tmp_path / "none", range(50), editor="none", strength=-2.0)
    write_run(tmp_path / "ft_l", range(50), editor="ft_l", strength=0.5)
    (block,) = paper_table(4, studies(tmp_path), difference=no_difference, only_begun=True).blocks
    cells = {line.cells[0].text: line.cells for line in block.lines}
    assert all(cell.mark == "" for cell in cells["none"])
    assert {cell.mark for cell in cells["FT+L"]} == {"", "failure"}  # alone it is no highest
