"""The tables' columns, cells and colours."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from romexp.reporting.tables.run import TableRow, cell, columns_of, is_clear_failure, rich_table, table_rows


def metrics(**means: float) -> dict[str, dict[str, Any]]:
    return {name: {"mean": mean, "half_width": None if name == "S" else 0.34, "n": 10} for name, mean in means.items()}


PRE = metrics(S=30.5, ES=22.2, EM=-4.8, PS=24.7, PM=-5.0, NS=78.1, NM=5.0, GE=626.6, RS=31.9)
ROME = metrics(S=89.2, ES=100.0, EM=97.9, PS=96.4, PM=62.7, NS=75.4, NM=4.2, GE=621.9, RS=41.9)
SUMMARY = {"n_cases": 10, "n_failed": 0, "pre": PRE, "post": ROME}


def render(rows: list[TableRow], *, colour: bool = False) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=colour, color_system="standard" if colour else None)
    console.print(rich_table(rows, title="Table 4"))
    return console.file.getvalue()  # type: ignore[attr-defined]


def cells(text: str) -> list[list[str]]:
    """Headings and rows of a printed table."""
    lines = [line.strip("┃│") for line in text.splitlines() if line[:1] in "┃│"]
    return [[part.strip() for part in re.split("[┃│]", line)] for line in lines]


def test_cells() -> None:
    assert cell({"mean": 99.04, "half_width": 0.26, "n": 3}) == "99.0 (0.3)"
    assert cell({"mean": 89.24, "half_width": None, "n": 3}) == "89.2"
    assert cell({"mean": -0.04, "half_width": 0.0, "n": 7}) == "0.0 (0.0)"
    assert cell({"mean": 50.0, "half_width": 0.0, "n": 1}) == "50.0 (–)"  # as older summaries say it
    assert cell(None) == "–"


def test_two_rows_in_the_papers_columns() -> None:
    rows = table_rows(SUMMARY, editor="ROME")
    assert [(row.label, row.edited) for row in rows] == [("unedited", False), ("ROME", True)]
    assert columns_of(rows) == ["S", "ES", "EM", "PS", "PM", "NS", "NM", "GE", "RS"]
    text = render(rows)
    assert "Table 4" in text
    assert [line[0] for line in cells(text)] == ["Editor", "unedited", "ROME"]
    assert len({len(line) for line in text.splitlines()[1:]}) == 1
    assert cells(text)[2][:3] == ["ROME", "89.2", "100.0 (0.3)"]
    assert "621.9 (0.3)" in text


def test_only_columns_that_exist() -> None:
    rows = table_rows({"pre": metrics(ES=10.0), "post": metrics(ES=90.0, essence=3.0)}, editor="FT")
    assert columns_of(rows) == ["ES"]
    one_sided = [TableRow(label="a", metrics=metrics(ES=1.0)), TableRow(label="b", metrics=metrics(GE=1.0))]
    assert columns_of(one_sided) == ["ES", "GE"]
    assert cells(render(one_sided))[1] == ["a", "1.0 (0.3)", "–"]


def test_zsre_columns() -> None:
    side = metrics(Specificity=24.2, Paraphrase=88.1, Efficacy=99.8, S=45.0)
    assert columns_of([TableRow(label="ROME", metrics=side)]) == ["S", "Efficacy", "Paraphrase", "Specificity"]


def test_a_run_without_edits_has_one_row() -> None:
    assert [row.label for row in table_rows({"n_cases": 1, "pre": PRE}, editor="none")] == ["unedited"]


@pytest.mark.parametrize(
    ("label", "side", "red"),
    [  # the values that the paper's Table 4 has below its thresholds
        ("FT", metrics(S=65.1, ES=100.0, EM=98.8, PS=87.9, PM=46.6, NS=40.4, NM=-6.2, GE=607.1, RS=40.5), "NS NM"),
        ("KN", metrics(S=35.6, ES=28.7, EM=-3.4, PS=28.0, PM=-3.3, NS=72.9, GE=570.4, RS=30.3), "S ES EM PS PM GE RS"),
        ("ROME", ROME, ""),
        ("FT zsRE", metrics(S=19.0, Efficacy=99.6, Paraphrase=49.9, Specificity=23.2), "S Paraphrase"),
    ],
)
def test_clear_failures(label: str, side: dict[str, Any], red: str) -> None:
    row = TableRow(label=label, metrics=side)
    assert [name for name in side if is_clear_failure(row, name)] == red.split()


def test_red_is_printed_for_edited_models_alone() -> None:
    good = render(table_rows(SUMMARY, editor="ROME"), colour=True)
    assert "\x1b[31m" not in good  # the unedited model is below most thresholds
    bad = render([TableRow(label="KN", metrics=metrics(ES=28.7, NS=72.9))], colour=True)
    assert bad.count("\x1b[31m") == 1


def test_labels_may_name_something_else_than_editors() -> None:
    shown = rich_table([TableRow(label="editor=rome", metrics=metrics(ES=1.0))], title="2 jobs", heading="Job")
    assert [column.header for column in shown.columns] == ["Job", "ES"]


def test_labels_are_not_markup() -> None:
    assert "[bold]x" in render([TableRow(label="[bold]x", metrics=metrics(ES=1.0))])
