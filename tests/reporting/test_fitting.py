"""Tables fold where the terminal is too narrow for them, and lose nothing by it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from romexp.reporting.tables.fitting import FittingTable
from romexp.reporting.tables.run import TableRow, rich_table

NAMES = ("S", "ES", "EM", "PS", "PM", "NS", "NM", "GE", "RS")


def summary(half_width: float) -> dict[str, dict[str, float | int | None]]:
    return {
        name: {"mean": 90.0 + i, "half_width": None if name == "S" else half_width, "n": 10}
        for i, name in enumerate(NAMES)
    }


def table(label: str = "ROME") -> FittingTable:
    rows = [TableRow(label="unedited", metrics=summary(0.2), edited=False), TableRow(label=label, metrics=summary(3.4))]
    return rich_table(rows, title="minifact, 100 cases")


def printed(shown: FittingTable, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(shown)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 130])
@pytest.mark.parametrize("label", ["ROME", "editor=rome editor.layer=1 editor.v_num_grad_steps=20", "x" * 90])
def test_it_fits_and_holds_every_number(width: int, label: str) -> None:
    lines = printed(table(label), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert all(f"{90.0 + i:.1f}" in text for i in range(len(NAMES)))
    assert text.count("(3.4)") == len(NAMES) - 1, "S has none"
    assert "…" not in text


def test_where_there_is_room_it_is_one_table_of_one_line_a_row() -> None:
    assert len(printed(table(), 130)) == 7
    assert any("91.0 (3.4)" in line for line in printed(table(), 130))


@pytest.mark.parametrize("width", [80, 100])
def test_intervals_go_to_a_second_line_first(width: int) -> None:
    lines = printed(table(), width)
    (row,) = (i for i, line in enumerate(lines) if "ROME" in line)
    assert all(f"{90.0 + i:.1f}" in lines[row] for i in range(len(NAMES))), "one row holds all metrics"
    assert lines[row + 1].count("(3.4)") == len(NAMES) - 1


def test_margins_come_last_where_it_is_cut_into_several() -> None:
    text = "\n".join(printed(table(), 60))
    assert text.index(" NS ") < text.index(" EM ")
    assert text.count("unedited") == text.count("ROME") > 1
    assert text.count("minifact, 100 cases") == 1


def test_a_column_of_an_empty_or_repeated_name_stays_with_the_one_before_it() -> None:
    shown = FittingTable()
    shown.add_column("token")
    for kind in ("state", "mlp", "attention"):
        shown.add_column(f"{kind}: highest probability", justify="right")
        shown.add_column("layer", justify="right")
    shown.add_row("'Paris'", "1 %", "10", "2 %", "20", "3 %", "30")
    lines = printed(shown, 60)
    rows = [line for line in lines if "Paris" in line]
    assert len(rows) > 1
    assert all(row.count("%") == row.count("0 │") > 0 for row in rows), "each effect with its layer"


def test_text_is_wrapped_and_stays_what_it_was() -> None:
    shown = FittingTable("case", "text")
    shown.add_row("1", Text("[bold] of the " * 20))
    lines = printed(shown, 80)
    assert max(map(len, lines)) <= 80
    assert sum(line.count("[bold]") for line in lines) == 20
