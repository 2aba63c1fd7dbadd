"""One table as Markdown, CSV, LaTeX and on the terminal."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from page_runs_made_up import no_difference, studies
from report_runs import write_run
from rich.console import Console
from rich.text import Text

from romexp.analysis.metrics import COUNTERFACT
from romexp.analysis.published import TABLES
from romexp.reporting.tables.latex import MOST_LINES, latex, latex_document, to_latex
from romexp.reporting.tables.model import Block, Cell, Column, Line, ReportTable, metric_columns
from romexp.reporting.tables.paired import paired_table
from romexp.reporting.tables.paper import paper_table
from romexp.reporting.tables.writers import notes_and_commands, to_csv, to_markdown, to_rich


def printed(table: ReportTable) -> str:
    console = Console(file=io.StringIO(), width=300)
    for shown in to_rich(table):
        console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_marks_are_in_every_format(tmp_path: Path) -> None:
    for editor, strength in (("ft", 4.0), ("ft_l", 0.5)):
        write_run(tmp_path / editor, range(50), editor=editor, strength=strength)
    table = paper_table(4, studies(tmp_path), difference=no_difference, only_begun=True)
    best = next(line.cells[3].text for line in table.blocks[0].lines if line.cells[0].text == "FT")
    failed = next(line.cells[5].text for line in table.blocks[0].lines if line.cells[0].text == "FT+L")
    assert f"**{best}**" in to_markdown(table)
    assert f"{failed} ▼" in to_markdown(table)
    assert rf"\textbf{{\textcolor{{green!50!black}}{{{best}}}}}" in to_latex(table)
    assert rf"\textcolor{{red}}{{{failed}}}" in to_latex(table)
    assert best in printed(table)
    cells = [cell for shown in to_rich(table) for column in shown.columns for cell in column.cells]
    assert {(cell.plain, str(cell.style)) for cell in cells if isinstance(cell, Text)} >= {
        (best, "bold green"),
        (failed, "red"),
    }


def awkward() -> ReportTable:
    name = r"50 % of a_b & c#d {x} \ ~ ^ <é> ε [Zürich] łódź 漢"
    line = Line(cells=(Cell(text=name), Cell(text="[1.0, 2.0]", value=1.0), Cell(text="−1.0 (0.1)", mark="failure")))
    return ReportTable(
        name="awkward",
        title=name,
        columns=(Column(name="Editor", numeric=False), Column(name="S_%", heading="Score"), Column(name="x")),
        blocks=(Block(title=name, lines=(line, line), notes=(name,), commands=("romexp a=b",)),),
        caption=name,
        records=({"a": name, "b": 1.5},),
    )


def test_names_of_any_kind(tmp_path: Path) -> None:
    table = awkward()
    assert next(csv.DictReader(io.StringIO(to_csv(table))))["a"] == table.title
    assert r"a\_b & c" in to_markdown(table)
    assert "[Zürich]" in printed(table)
    assert notes_and_commands(table) == [f"{table.title}:", f"  {table.title}", "    romexp a=b"]
    assert latex(table.title) == (
        r"50 \% of a\_b \& c\#d \{x\} \textbackslash{} \textasciitilde{} \textasciicircum{} "
        r"\ensuremath{<}\'e\ensuremath{>} $\varepsilon$ {[}Z\"urich] \l{}\'od\'z ?"
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("–1 −2 “a” → b|c", r"--1 $-$2 ``a'' $\to$ b\textbar{}c"),
        ("Å Ł Œ œ ß ø maître", r"\r{A} \L{} \OE{} \oe{} \ss{} \o{} ma\^\i{}tre"),
        ("e\u0301 Δ µ …", r"\'e \ensuremath{\Delta} \textmu{} \textellipsis{}"),
        ("Ąđ ₂", "A? 2"),  # The standard fonts have no such letters.
        ("漢 Ж \ud800 \x00\x07\x7f", "? ? ? ???"),
    ],
)
def test_characters_as_latex_sets_them(text: str, written: str) -> None:
    assert latex(text) == written


def compiled(folder: Path, tables: list[ReportTable]) -> subprocess.CompletedProcess[str]:
    """What pdflatex makes of a document of these tables: `tables.pdf` in the folder, and what it says."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here")
    for table in tables:
        (folder / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    (folder / "tables.tex").write_text(latex_document([table.name for table in tables]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")


def assert_fits(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
    assert "Float too large" not in done.stdout
    assert (folder / "tables.pdf").stat().st_size > 10_000


def test_latex_compiles(tmp_path: Path) -> None:
    for editor in ("ft", "rome"):
        write_run(tmp_path / editor, range(10), editor=editor, model="gpt2-xl", dataset="counterfact")
        write_run(tmp_path / f"{editor}_zsre", range(10), editor=editor, dataset="zsre", zsre=True)
    found = studies(tmp_path)
    tables = [awkward(), *(paper_table(n, found, difference=no_difference) for n in TABLES), paired_table(found)]
    assert_fits(compiled(tmp_path, tables), tmp_path)


def test_pdflatex_sets_any_character(tmp_path: Path) -> None:
    """No name stops a document, whatever its script. The long range holds all alphabets, punctuation and symbols."""
    texts = ["".join(map(chr, range(start, start + 64))) for start in (*range(0, 0x3100, 64), 0xFB00, 0xFFC0, 0x1D400)]
    lines = tuple(Line(cells=(Cell(text=f"x{text}"),)) for text in texts)
    table = replace(
        awkward(), columns=(Column(name="Editor", numeric=False),), blocks=(Block(title="all", lines=lines),)
    )
    done = compiled(tmp_path, [table])
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "tables.log").read_text(errors="replace")


def test_long_tables_go_over_several_pages_with_their_headings(tmp_path: Path) -> None:
    numbers = [Cell(text="100.0 (0.0)")] * 10
    lines = tuple(
        Line(
            cells=(Cell(text=f"ROME (layer={n}, fact_token=subject_first_after_last)"), *numbers),
            role=role,
            below=role != "measured",
        )
        for n in range(60)
        for role in ("measured", "published")
    )
    table = ReportTable(
        name="long", title="Sweeps", caption="A caption.",
        columns=(Column(name="Editor", numeric=False), Column(name="Cases"), *metric_columns(COUNTERFACT)),
        blocks=(Block(title="a model", lines=lines),),
    )  # fmt: skip
    done = compiled(tmp_path, [table])
    assert_fits(done, tmp_path)
    pages = re.search(r"\((\d+) pages", done.stdout)
    assert pages is not None
    assert int(pages[1]) >= 3
    text = to_latex(table)
    assert text.count(r"\endhead") == text.count(r"\endfirsthead") == 1
    longest = replace(table, blocks=(Block(title="a model", lines=lines[:MOST_LINES]),))
    assert_fits(compiled(tmp_path, [longest]), tmp_path)
    few = replace(table, blocks=(Block(title="a model", lines=lines[:10]),))
    assert "longtable}" not in to_latex(few)
