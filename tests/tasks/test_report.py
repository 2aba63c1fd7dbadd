"""`task=report`: reads results and never writes into them, says what is missing, the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_runs import write_run
from tiny_runs import Command

from romexp.analysis.studies import to_studies
from romexp.data.published import COUNTERFACT
from romexp.results.find import find_runs
from romexp.tasks.paper_settings import PaperSettings, composed

QUICK = ("task=report", "tracker=none", "task.figures=false")


def everything(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def report_of(out: str) -> Path:
    (line,) = (line for line in out.splitlines() if line.startswith("report: "))
    return Path(line.removeprefix("report: "))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three editors, one of them half done; and traces that nothing can be made of."""
    root = tmp_path / "outputs"
    write_run(root / "edit" / "rome", range(12), selection={"limit": 12})
    write_run(root / "edit" / "ft", range(12), editor="ft", selection={"limit": 12}, strength=4.0)
    write_run(root / "edit" / "ft_l", range(5), editor="ft_l", selection={"limit": 12}, status="running")
    write_run(root / "trace" / "t", range(2), identity={"task": "trace"})
    return root


def test_every_table_with_results_and_nothing_of_them_changed(results: Path, romexp: Command) -> None:
    before = everything(results)
    done = romexp(*QUICK)
    assert done.status == 0, done.err
    folder = report_of(done.out)
    assert folder.parent == Path("outputs/report")
    assert {path.name for path in folder.iterdir()} == {
        "report.json", "tables.tex",
        *(f"{name}.{kind}" for name in ("table4", "paired") for kind in ("md", "csv", "tex")),
    }  # fmt: skip
    after = everything(results)
    assert {name: content for name, content in after.items() if not name.startswith("report/")} == before
    assert "minifact, minifact (not in the paper):\n  FT+L: 5 of 12 cases (1 of 1 runs not finished)" in done.out
    assert "    romexp model=minifact dataset=minifact editor=ft_l dataset.limit=12" in done.out
    assert "not one of 2 facts was traced" in done.out
    assert json.loads((folder / "report.json").read_text())["problems"]


def test_the_same_results_give_the_same_bytes_in_the_same_folder(results: Path, romexp: Command) -> None:
    first = report_of(romexp("task=report", "tracker=none").out)
    content = everything(first)
    assert any(name.endswith(".png") for name in content)
    assert report_of(romexp("task=report", "tracker=none").out) == first
    assert everything(first) == content
    other = report_of(romexp(*QUICK, "table=4").out)
    (results / "edit" / "ft_l" / "status").write_text("done\n")
    more = report_of(romexp("task=report", "tracker=none").out)
    assert len({first, other, more}) == 3
    assert everything(first) == content


@pytest.mark.parametrize(
    ("said", "expected"),
    [("table=7", "none of 1, 4, 5, 6"), ("table=sweep", "nothing for table=sweep"), ("table=traces", "table=traces")],
)
def test_what_there_is_not(results: Path, romexp: Command, said: str, expected: str) -> None:
    done = romexp(*QUICK, said)
    assert done.status == 2
    assert expected in done.err
    assert not (results / "report").exists()


def test_without_results(tmp_path: Path, romexp: Command) -> None:
    assert "no folder outputs" in romexp(*QUICK).err
    (tmp_path / "outputs").mkdir()
    assert "no run with a finished case" in romexp(*QUICK).err
    done = romexp(*QUICK, "table=5", "outputs=outputs/")
    assert done.status == 0, done.err
    assert "romexp model=gpt2-medium dataset=counterfact dataset.limit=7500 editor=ft_l" in done.out


def test_beside_the_papers_figures(tmp_path: Path, romexp: Command) -> None:
    """The paper's settings are composed inside the command, where Hydra is at work already."""
    paper = composed("gpt2-xl", "counterfact", "ft")
    write_run(
        tmp_path / "outputs" / "r", range(5), model="gpt2-xl", dataset="counterfact", editor="ft",
        identity={"evaluator": paper["evaluator"], "editor": paper["editor"]},
        manifest={"dataset": {"sha256": COUNTERFACT.sha256, "cases": 5}},
    )  # fmt: skip
    done = romexp(*QUICK, "table=4")
    assert done.status == 0, done.err
    text = (report_of(done.out) / "table4.md").read_text()
    assert "↳ difference" in text
    assert "FT: 5 of 7500 cases" in text


def test_page_and_report_for_a_dashboard(results: Path, romexp: Command) -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra `reports` is not installed")
    done = romexp("task=report", "page=true", "wandb=true", "tracker=none")
    assert done.status == 0, done.err
    folder = report_of(done.out)
    assert "minifact" in (folder / "page.html").read_text(encoding="utf-8")
    assert f"W&B report: {folder}" in done.out
    assert list(folder.glob("wandb_report*.json"))


def test_a_folder_of_ones_own(results: Path, romexp: Command) -> None:
    first = romexp(*QUICK, "output_dir=paper")
    assert report_of(first.out) == Path("paper")
    assert romexp(*QUICK, "output_dir=paper").status == 0
    refused = romexp(*QUICK, "output_dir=paper", "table=4")
    assert "holds a report on other results or of other options" in refused.err
    into = romexp(*QUICK, f"output_dir={results / 'edit' / 'ft'}")
    assert into.status == 2
    assert "is not an empty folder" in into.err


def test_results_of_several_folders_and_a_swept_setting(tmp_path: Path, romexp: Command) -> None:
    for bound in (0.001, 0.005):
        write_run(tmp_path / f"b{bound}" / "r", range(4), editor="ft_l", settings={"norm_constraint": bound})
    done = romexp(
        *QUICK, "table=sweep", "task.x=editor.norm_constraint", f"task.results=[{tmp_path}/b0.001,{tmp_path}/b0.005]"
    )
    assert done.status == 0, done.err
    text = (report_of(done.out) / "sweep.csv").read_text().splitlines()
    assert [line.split(",")[:7] for line in text[1:]] == [
        ["minifact", '"minifact', ' minifact"', "ft_l", "FT+L", "editor.norm_constraint", "0.001"],
        ["minifact", '"minifact', ' minifact"', "ft_l", "FT+L", "editor.norm_constraint", "0.005"],
    ]


def test_the_papers_settings_are_those_that_the_options_compose_to(tmp_path: Path) -> None:
    def judged(name: str, editor: str, **changed: object) -> str:
        paper = composed("gpt2-xl", "counterfact", editor)
        identity = {
            "evaluator": paper["evaluator"] | {"generation": "off"},
            "covariance": paper["covariances"][1],
            "editor": paper["editor"] | changed,
        }
        dataset = {"sha256": COUNTERFACT.sha256, "cases": 3}
        write_run(
            tmp_path / name / "r", range(3), model="gpt2-xl", dataset="counterfact", editor=editor, identity=identity,
            manifest={"dataset": dataset},
        )  # fmt: skip
        (study,) = to_studies(find_runs([tmp_path / name]).runs).studies
        return PaperSettings()(study, study.entries[0])

    assert judged("a", "rome") == ""
    assert judged("b", "rome", context_templates=["{}"]) == ""
    assert judged("c", "rome", layer=3, keys="prompt") == "layer=3, the paper's 17; keys=prompt, the paper's mixed"
    assert judged("d", "ft_l") == ""
    assert judged("e", "ft_l", teacher_forcing=True, train_bias=False) == ""
    assert judged("f", "ft_l", norm_constraint=0.1) == "norm_constraint=0.1, the paper's 0.0005"


def test_other_data_or_precision_is_not_compared(tmp_path: Path) -> None:
    paper = composed("gpt2-xl", "counterfact", "ft")
    identity = {
        "evaluator": paper["evaluator"],
        "editor": paper["editor"],
        "model": {"digest": "x", "dtype": "float16"},
    }
    dataset = {"sha256": COUNTERFACT.sha256, "cases": 3}
    write_run(tmp_path / "a", range(3), model="gpt2-xl", dataset="counterfact", editor="ft", identity=identity)
    write_run(
        tmp_path / "b", range(3), model="gpt2-xl", dataset="counterfact", editor="ft",
        identity=identity | {"seed": 1}, manifest={"dataset": dataset},
    )  # fmt: skip
    (study,) = to_studies(find_runs([tmp_path]).runs).studies
    assert [PaperSettings()(study, entry) for entry in study.entries] == [
        "other data than the paper's",
        "dtype=float16, the paper's float32",
    ]
