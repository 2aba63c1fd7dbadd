"""Published numbers, the paper's tables with ours beside them, paired differences, sweeps; in every format."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_runs import write_run
from rich.console import Console
from rich.text import Text

from romexp.reporting.latex import MOST_LINES, latex, latex_document, to_latex
from romexp.reporting.metrics import COUNTERFACT, case_metrics
from romexp.reporting.paired import MOST_PAIRS, paired, paired_table, pairs
from romexp.reporting.paper_table import paper_table
from romexp.reporting.published import TABLES, published_table
from romexp.reporting.report_table import Block, Cell, Column, Line, ReportTable, metric_columns
from romexp.reporting.runs import find_runs
from romexp.reporting.studies import Entry, Study, to_studies
from romexp.reporting.summary import harmonic_mean
from romexp.reporting.sweep_table import sweep_table
from romexp.reporting.writers import notes_and_commands, to_csv, to_markdown, to_rich


def studies(root: Path) -> tuple[Study, ...]:
    return to_studies(find_runs([root]).runs).studies


def the_papers(study: Study, entry: Entry) -> str:
    return ""


def printed(table: ReportTable) -> str:
    console = Console(file=io.StringIO(), width=300)
    for shown in to_rich(table):
        console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def record(table: ReportTable, editor: str) -> dict[str, str]:
    return next(row for row in csv.DictReader(io.StringIO(to_csv(table))) if row["editor"] == editor)


@pytest.mark.parametrize("number", TABLES)
def test_published_numbers_agree_with_their_own_scores(number: int) -> None:
    """S is the harmonic mean of three means: a typing error in one of the four would show."""
    table = published_table(number)
    parts = ("Efficacy", "Paraphrase", "Specificity") if table.kind == "zsre" else ("ES", "PS", "NS")
    for model in table.models:
        assert model.rows[0].editor == ""
        assert len({row.editor for row in model.rows}) == len(model.rows)
        for row in model.rows:
            assert tuple(row.values) == table.columns
            assert row.values["S"].mean == pytest.approx(harmonic_mean(row.values[p].mean for p in parts), abs=0.1)
            assert all((value.half_width is None) == (name == "S") for name, value in row.values.items())
            assert all(0 <= (value.half_width or 0) <= 8 for value in row.values.values())


def test_published_tables_are_the_papers() -> None:
    assert {n: [(m.model, m.records, len(m.rows)) for m in published_table(n).models] for n in TABLES} == {
        1: [("gpt2-xl", 10000, 8)],
        4: [("gpt2-xl", 7500, 9), ("gpt-j-6b", 2000, 5)],
        5: [("gpt2-medium", 7500, 3), ("gpt2-large", 7500, 3)],
        6: [("gpt2-medium", 10000, 3), ("gpt2-large", 10000, 3)],
    }
    rome = published_table(4).models[0].row("rome")
    assert rome is not None
    assert [(v.mean, v.half_width) for v in rome.values.values()] == [
        (89.2, None), (100.0, 0.1), (97.9, 0.2), (96.4, 0.3), (62.7, 0.8),
        (75.4, 0.7), (4.2, 0.2), (621.9, 0.5), (41.9, 0.3),
    ]  # fmt: skip


def test_ours_published_and_difference(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(40), model="gpt2-xl", dataset="counterfact", selection={"limit": 40})
    write_run(tmp_path / "b", range(40), model="gpt2-xl", dataset="counterfact", editor="ft", settings={"layer": 9})
    table = paper_table(
        4, studies(tmp_path), departure=lambda study, entry: "layer=9, the paper's 1" if entry.editor == "ft" else ""
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
    begun = paper_table(4, studies(tmp_path), departure=the_papers, only_begun=True)
    assert len(begun.blocks) == 1


def test_an_unfinished_run_goes_on_and_then_the_rest_is_asked_for(tmp_path: Path) -> None:
    place = {"model": "gpt2-medium", "dataset": "counterfact", "status": "running"}
    write_run(tmp_path / "a", range(20), selection={"limit": 50}, **place)  # type: ignore[arg-type]
    block = paper_table(5, studies(tmp_path), departure=the_papers, suffix=["outputs=o"], only_begun=True).blocks[0]
    start = "romexp model=gpt2-medium dataset=counterfact"
    assert block.commands == (
        f"{start} editor=rome dataset.limit=50",
        f"{start} editor=rome dataset.offset=50 dataset.limit=7450 outputs=o",
        f"{start} dataset.limit=7500 editor=ft_l outputs=o",
    )


def test_runs_on_other_data_stand_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0, 9000], model="gpt2-xl", dataset="mine")
    xl = paper_table(4, studies(tmp_path), departure=lambda study, entry: "other data than the paper's").blocks[0]
    assert [line.cells[0].text for line in xl.lines if line.role == "measured"] == ["unedited", "ROME, other data"]
    assert not any(line.role == "difference" for line in xl.lines)
    assert xl.lines[0].cells[1].text == "2"


def test_differences_beyond_both_intervals_are_starred(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(60), model="gpt2-xl", dataset="counterfact", strength=-1.0)
    (xl, _) = paper_table(4, studies(tmp_path), departure=the_papers).blocks
    line = xl.lines[-1]
    assert line.role == "difference"
    assert line.cells[3].text.startswith("-")
    assert line.cells[3].text.endswith("*")
    assert "*" not in line.cells[2].text  # S: the paper gives no interval
    assert line.cells[9].text == "–"  # GE was not measured


def test_only_the_papers_cases_count(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0, 1, 2, 1999, 2000, 2001], model="gpt-j-6b", dataset="counterfact")
    block = paper_table(4, studies(tmp_path), departure=the_papers).blocks[1]
    assert [line.cells[1].text for line in block.lines if line.role == "measured"] == ["4", "4"]
    assert any("first 2000" in note for note in block.notes)


def test_models_that_the_paper_does_not_have(tmp_path: Path) -> None:
    for editor, strength in (("ft", 4.0), ("ft_l", 0.5), ("rome", 3.0)):
        write_run(tmp_path / editor, range(50), editor=editor, strength=strength)
    write_run(tmp_path / "z", range(20), dataset="minifact_zsre", zsre=True)
    found = studies(tmp_path)
    table = paper_table(4, found, departure=the_papers, only_begun=True)
    (block,) = table.blocks
    assert {line.role for line in block.lines} == {"measured"}
    assert block.commands == ()
    assert paper_table(5, found, departure=the_papers, only_begun=True).blocks == ()
    (zsre,) = paper_table(1, found, departure=the_papers, only_begun=True).blocks
    assert zsre.title == "minifact, minifact_zsre (not in the paper)"
    cells = {line.cells[0].text: line.cells for line in block.lines}
    assert cells["FT"][3].mark == "best"  # ES
    assert cells["FT+L"][5].mark == "failure"  # PS
    assert all(cell.mark == "" for cell in cells["unedited"])


def test_marks_are_in_every_format(tmp_path: Path) -> None:
    for editor, strength in (("ft", 4.0), ("ft_l", 0.5)):
        write_run(tmp_path / editor, range(50), editor=editor, strength=strength)
    table = paper_table(4, studies(tmp_path), departure=the_papers, only_begun=True)
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


def test_paired_differences_are_those_of_a_naive_computation(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(0, 60), editor="ft", strength=2.0)
    write_run(tmp_path / "b", range(20, 80), editor="rome", strength=3.0)
    (study,) = studies(tmp_path)
    ft, rome = study.entries
    pair = paired(rome, ft, seed=3)
    by_id = [{row["case_id"]: case_metrics(row["post"]) for row in entry.rows} for entry in (rome, ft)]
    common = sorted(set(by_id[0]) & set(by_id[1]))
    assert (pair.n, common) == (40, list(range(20, 60)))
    for name in ("ES", "EM", "PS", "PM", "NS", "NM"):
        d = [by_id[0][i][name] - by_id[1][i][name] for i in common]
        mean = sum(d) / 40
        half = 1.96 * (sum((x - mean) ** 2 for x in d) / 40) ** 0.5 / 40**0.5
        assert pair.differences[name]["mean"] == pytest.approx(100 * mean)
        assert pair.differences[name]["half_width"] == pytest.approx(100 * half)
    score = [harmonic_mean(np.mean([side[i][m] for i in common]) for m in ("ES", "PS", "NS")) for side in by_id]
    assert pair.differences["S"]["mean"] == pytest.approx(100 * (score[0] - score[1]))
    # A bootstrap written out, with other random numbers: the interval is the same but for its noise.
    random = np.random.default_rng(99)
    values = [np.array([[side[i][m] for m in ("ES", "PS", "NS")] for i in common]) for side in by_id]
    drawn = []
    for _ in range(2000):
        again = random.integers(40, size=40)
        drawn.append(100 * (harmonic_mean(values[0][again].mean(0)) - harmonic_mean(values[1][again].mean(0))))
    assert pair.differences["S"]["interval"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist(), abs=1.5)
    assert paired(ft, rome, seed=3).differences["S"]["interval"] == pytest.approx(
        [-x for x in reversed(pair.differences["S"]["interval"])]
    )


def test_pairing_narrows_the_interval_of_editors_that_fail_on_the_same_cases(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(60), editor="ft")
    write_run(tmp_path / "b", range(60), editor="rome")  # the same seed and strength: the same rows
    (study,) = studies(tmp_path)
    ft, rome = study.entries
    assert paired(rome, ft).differences["EM"] == {"mean": 0.0, "half_width": 0.0, "std": 0.0, "n": 60}
    assert paired(rome, ft).differences["S"]["interval"] == [0.0, 0.0]
    assert rome.metrics["EM"]["half_width"] > 1


def test_every_pair_or_all_against_the_best(tmp_path: Path) -> None:
    for layer in range(11):
        write_run(tmp_path / f"r{layer}", range(8), settings={"layer": layer}, strength=layer / 2)
    few = studies(tmp_path)[0]
    assert len(few.entries) * (len(few.entries) - 1) // 2 > MOST_PAIRS
    assert len(pairs(few)) == 10
    table = paired_table([few])
    assert "whose S is highest" in table.blocks[0].notes[0]
    three = Study(**{**vars_of(few), "entries": few.entries[:3]})
    assert [(p.first.label, p.second.label) for p in pairs(three)] == [
        ("ROME (layer=1)", "ROME (layer=0)"),
        ("ROME (layer=2)", "ROME (layer=0)"),
        ("ROME (layer=2)", "ROME (layer=1)"),
    ]


def vars_of(study: Study) -> dict[str, object]:
    return {name: getattr(study, name) for name in ("label", "model", "dataset", "kind", "identity", "entries")}


def test_a_sweep_by_layer_and_by_another_setting(tmp_path: Path) -> None:
    for layer in (0, 2, 10):
        for bound in (None, 0.001):
            write_run(
                tmp_path / f"{layer}{bound}", range(6), editor="ft", settings={"layer": layer, "norm_constraint": bound}
            )
    write_run(tmp_path / "rome", range(6))
    found = studies(tmp_path)
    (block,) = sweep_table(found).blocks
    assert block.title == "FT by editor.layer, minifact, minifact"
    assert [(line.cells[0].text, line.cells[1].text) for line in block.lines] == [
        ("norm_constraint=null", "0"),
        ("norm_constraint=null", "2"),
        ("norm_constraint=null", "10"),
        ("norm_constraint=0.001", "0"),
        ("norm_constraint=0.001", "2"),
        ("norm_constraint=0.001", "10"),
    ]
    (bounds,) = sweep_table(found, x="editor.norm_constraint").blocks
    assert [(line.cells[0].text, line.cells[1].text) for line in bounds.lines][:3] == [
        ("layer=0", "null"),
        ("layer=0", "0.001"),
        ("layer=2", "null"),
    ]
    assert sweep_table(found, x="editor.lr").blocks == ()


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
    assert latex("łódź 漢 é") == "?ódz ? é"


def compiled(folder: Path, tables: list[ReportTable]) -> str:
    """What pdflatex says of a document of these tables."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here")
    for table in tables:
        (folder / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    (folder / "tables.tex").write_text(latex_document([table.name for table in tables]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
    assert "Float too large" not in done.stdout
    assert (folder / "tables.pdf").stat().st_size > 10_000
    return done.stdout


def test_latex_compiles(tmp_path: Path) -> None:
    for editor in ("ft", "rome"):
        write_run(tmp_path / editor, range(10), editor=editor, model="gpt2-xl", dataset="counterfact")
        write_run(tmp_path / f"{editor}_zsre", range(10), editor=editor, dataset="zsre", zsre=True)
    found = studies(tmp_path)
    compiled(tmp_path, [awkward(), *(paper_table(n, found, departure=the_papers) for n in TABLES), paired_table(found)])


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
    said = compiled(tmp_path, [table])
    pages = re.search(r"\((\d+) pages", said)
    assert pages is not None
    assert int(pages[1]) >= 3
    text = to_latex(table)
    assert text.count(r"\endhead") == text.count(r"\endfirsthead") == 1
    compiled(tmp_path, [replace(table, blocks=(Block(title="a model", lines=lines[:MOST_LINES]),))])
    few = replace(table, blocks=(Block(title="a model", lines=lines[:10]),))
    assert "longtable}" not in to_latex(few)
