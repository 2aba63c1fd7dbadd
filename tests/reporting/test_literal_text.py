"""What users and models wrote is printed as it is in every table, list and figure, and is a formula nowhere."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from page_runs_made_up import no_difference, studies
from report_runs import write_run
from rich.console import Console, RenderableType

from romexp.analysis.traces import trace_summary
from romexp.cli.console import print_outcome
from romexp.cli.job import Outcome
from romexp.cli.job_record import JobRecord
from romexp.cli.progress import bars
from romexp.cli.sweep import SweepJob
from romexp.cli.sweep_table import _number_table, sweep_tables
from romexp.human_eval.scores import score_tables
from romexp.reporting.figures.traces import prompt_heatmap
from romexp.reporting.tables.latex import to_latex
from romexp.reporting.tables.model import Block, Cell, Column, Line, ReportTable
from romexp.reporting.tables.paired import paired_table
from romexp.reporting.tables.paper import paper_table
from romexp.reporting.tables.run import TableRow, rich_table
from romexp.reporting.tables.sweep import sweep_table
from romexp.reporting.tables.traces import trace_table
from romexp.reporting.tables.writers import to_csv, to_markdown, to_rich
from romexp.reporting.terminal import visible

NAMES = (
    "m [/v1]",
    "[INST] a [/INST]",
    "[bold]x",
    ":smile:",
    "[link=http://x]y[/link]",
    "[@click=f]z",
    r"\[b]",
    "a[",
    "$x_1$",
)


def printed(*tables: RenderableType) -> str:
    """What a console of Rich's usual kind shows, which reads markup."""
    console = Console(file=io.StringIO(), width=600)
    for table in tables:
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def trace_row(name: str) -> dict[str, Any]:
    grid = np.full((4, 2), 0.5).tolist()
    return {
        "case_id": 0,
        "prompt": f"{name} is in",
        "answer": f" {name}",
        "correct_prediction": True,
        "tokens": [name, "is", name, "in"],
        "subject_range": [0, 1],
        "high_score": 0.9,
        "low_score": 0.1,
        "hidden": grid,
        "mlp": grid,
        "attn": grid,
    }


def report_tables(root: Path, name: str) -> list[ReportTable]:
    for layer in (0, 1):
        said = {"editor_label": name, "settings_not_tuned": {"layer": name}}
        write_run(root / f"l{layer}", range(3), model=name, settings={"layer": layer, "note": name}, manifest=said)
    found = studies(root)
    paper = paper_table(4, found, difference=no_difference, only_begun=True)
    return [paper, sweep_table(found), paired_table(found)]


@pytest.mark.parametrize("name", NAMES)
def test_every_printed_table_shows_names_as_they_are(name: str, tmp_path: Path) -> None:
    statistics = {"ES": {"mean": 1.0, "half_width": 0.1, "std": 0.1, "n": 3}}
    shown = printed(rich_table([TableRow(label=name, metrics=statistics, not_tuned=[name])], title=name))
    assert shown.count(name) == 3
    rows = [trace_row(name)]
    assert printed(trace_table(trace_summary(rows), rows, title=name)).count(name) >= 2 + 1
    assert name in printed(trace_table(trace_summary(rows * 2), rows * 2, title=name))
    for table in report_tables(tmp_path / "runs", name):
        assert name in printed(*to_rich(table)), table.name
    assert printed(_number_table([(name, {name: 1.0})])).count(name) == 2
    pair = {"one": "a", "other": "b", "wins": 1, "losses": 1, "share": 0.5, "share_interval": [0.1, 0.9]}
    pair |= {"ratio": 1.0, "ratio_interval": [0.1, 9.0], "published_ratio": None}
    agreement = {"alpha": 0.5, "interval": [0.1, 0.9], "cases": 1, "participants": 1}
    systems = {system: {"mean_rank": 1.0, "first": 0.5} for system in ("a", "b")}
    scores = {"fluency": {"rankings": 2, "agreement": agreement, "pairs": [pair], "systems": systems}}
    people = printed(*score_tables(scores, {"a": name, "b": "B"}))
    assert people.count(name) == 2
    assert "[0.10, 0.90]" in people


def test_tables_of_other_tasks_too() -> None:
    from romexp.tasks.covariance import FitCovariance
    from romexp.tasks.train import _table

    name = "m [/v1]"
    values = dict.fromkeys(("step", "edit_loss", "locality_loss", "total_loss", "accuracy"), 1.0)
    assert name in printed(_table({"best": values}, f"MEND for {name}"))
    run: Any = SimpleNamespace(folder=SimpleNamespace(path=Path("x")))
    task: Any = SimpleNamespace(covariance=SimpleNamespace(cache_dir="c"), export=False)
    outcome = FitCovariance._outcome(task, run, SimpleNamespace(name=name), {"0": {"trace": 1.0}})  # type: ignore[arg-type]
    assert name in printed(*outcome.tables)


def test_a_sweep_prints_its_overrides(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"n": 3}')
    record = JobRecord.begun(number=0, overrides=("model.name=m [/v1]",)).ended(
        exit_status=0, error="", traceback="", results=str(tmp_path), seconds=1.0
    )
    (table,) = sweep_tables([SweepJob(number=0, label="model.name=m [/v1]", record=record)])
    assert "model.name=m [/v1]" in printed(table)


def test_the_command_prints_text_and_no_control_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table("[/v1]", title="[/v1] :smile:")
    table.add_row("[INST]")
    print_outcome(Outcome(tables=[table], lines=["results: a/[/v1]/\x1b[31mred"]))
    out = capsys.readouterr().out
    assert {"[/v1]", "[INST]", ":smile:"} <= set(re.findall(r"\[/v1\]|\[INST\]|:smile:", out))
    assert "\x1b" not in out
    assert visible("a\x1b]0;x\x07\x9b\r\nb") == "a\\x1b]0;x\\x07\\x9b\\x0d\nb"


def test_labels_of_progress_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with bars() as bar:
        bar("[/v1] of [bold]x")(1, 2)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert "[/v1] of [bold]x" in plain


@pytest.mark.parametrize("name", [*NAMES, "_hidden", "a_{b", "50 % ^ \\frac"])
def test_figures_take_nothing_for_mathematics(name: str, tmp_path: Path) -> None:
    figure = prompt_heatmap(trace_row(name), window=1, model=name)
    assert figure is not None
    figure.savefig(tmp_path / "f.png", dpi=20)
    assert figure.get_suptitle().replace(r"\$", "$").startswith(f"{name}: {name} is in")


FORMULAS = ("=1+1", "+cmd|x", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", '=HYPERLINK("http://x")')


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula_in_csv(text: str) -> None:
    record = {"label": text, "mean": -1.5, "count": -3, "value": "-0.5", "none": None}
    (row,) = csv.DictReader(io.StringIO(to_csv(a_table(text, records=(record,)))))
    assert row["label"] == f"'{text}".replace("\r", "\n")
    assert (row["mean"], row["count"], row["value"], row["none"]) == ("-1.5", "-3", "-0.5", "")
    plain = {"label": "ROME", "set": "a=b"}
    assert to_csv(a_table("x", records=(plain,))).splitlines()[1] == "ROME,a=b", "the control"


def a_table(text: str, **more: Any) -> ReportTable:
    line = Line(cells=(Cell(text=text), Cell(text="89.2 [88.9, 89.5]", value=89.2)))
    columns = (Column(name="Editor", numeric=False), Column(name="S"))
    block = Block(title=text, lines=(line,), notes=(text,), commands=(f"romexp 'x={text}'",))
    return ReportTable(name="t", title=text, columns=columns, blocks=(block,), caption=text, **more)


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:y)",
        "# heading",
        "a\nb",
        "1. item",
        "- item",
        "~~s~~",
        "&lt;b&gt;",
        "<img src=x>",
        "a|b",
        "$x$",
        "```",
    ],
)
def test_markdown_shows_text_unchanged(text: str) -> None:
    commonmark = pytest.importorskip("markdown_it", reason="markdown-it-py comes with Rich")
    html = commonmark.MarkdownIt("gfm-like", {"linkify": False}).render(to_markdown(a_table(text)))
    (item,) = re.findall(r"<li>(.*?)</li>", html, re.DOTALL)
    expected = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert item == expected
    assert re.findall(r"<td>(.*?)</td>", html)[0] == expected
    assert "89.2 [88.9, 89.5]" in to_markdown(a_table(text)), "numbers stay readable"
    assert html.count("<pre>") == 1


def test_latex_has_no_empty_line_from_a_name() -> None:
    assert "\n\n" not in to_latex(a_table("a\n\nb"))
