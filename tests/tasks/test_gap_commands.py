"""The commands by which a report fills gaps are run: afterwards every editor has every case, and none is missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest
from report_runs import write_run
from tiny_runs import Command

from romexp.analysis.missing import as_few_commands, study_gaps
from romexp.analysis.shared_cases import measured_ids
from romexp.analysis.studies import Study, to_studies
from romexp.results.find import find_runs

SWEEP = """
defaults:
  - config
  - _self_

model:
  path: {model}
  device: cpu
dataset:
  path: {records}
  offset: 4
  limit: 3
evaluator:
  generation: "off"

hydra:
  mode: MULTIRUN
  sweeper:
    params:
      editor: ft,ft_l,none
"""
CHOICES = ("model=hf", "dataset=counterfact", "tracker=none", "covariance=sampled")


def commands_of(out: str) -> list[str]:
    """The commands that a report shows, which are indented more than notes."""
    return [line.strip() for line in out.splitlines() if line.startswith("    romexp ")]


def the_study(root: Path = Path("outputs")) -> Study:
    (study,) = to_studies(find_runs([root]).runs).studies
    return study


def cases(study: Study) -> dict[str, set[int]]:
    return {entry.editor: set(measured_ids(entry)) for entry in study.entries}


def run_all(romexp: Command, commands: Iterable[str]) -> None:
    for text in commands:
        program, *arguments = shlex.split(text)
        assert program == "romexp"
        done = romexp(*arguments)
        assert done.status == 0, f"{text}\n{done.err}"


def test_commands_undo_what_the_sweeps_file_selects(
    romexp: Command, tiny_dir: Path, records_file: Path, tmp_path: Path
) -> None:
    """A sweep whose file sets an offset, and beside it a single run of one editor without it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "some.yaml").write_text(SWEEP.format(model=tiny_dir, records=records_file))
    assert romexp("-cd", "mine", "-cn", "some", *CHOICES).status == 0
    single = [f"model.path={tiny_dir}", "model.device=cpu", f"dataset.path={records_file}", "dataset.limit=3"]
    done = romexp(*CHOICES, *single, "editor=ft", "evaluator.generation=off", "output_dir=outputs/single")
    assert done.status == 0, done.err
    assert cases(the_study()) == {"ft": {0, 1, 2, 4, 5, 6}, "ft_l": {4, 5, 6}, "none": {4, 5, 6}}

    run_all(romexp, [f"romexp -cd mine -cn some hydra.mode=RUN {' '.join(CHOICES)} editor=ft_l dataset.limit=3"])
    assert cases(the_study())["ft_l"] == {4, 5, 6}, "the control: this is what stood there once"

    first = romexp("task=report", "tracker=none", "task.figures=false")
    assert "FT+L †: 3 of 6 cases" in first.out or "FT+L: 3 of 6 cases" in first.out
    (text,) = commands_of(first.out)  # one for all editors, and not one for each of the runs that another editor has
    assert "dataset.offset=0" in text
    run_all(romexp, [text])
    assert set(map(frozenset, cases(the_study()).values())) == {frozenset({0, 1, 2, 4, 5, 6})}
    assert commands_of(romexp("task=report", "tracker=none", "task.figures=false").out) == []


@pytest.mark.parametrize("selection", [["dataset.case_ids=[1,3]"], ["dataset.shard=2/3", "dataset.limit=6"]])
def test_any_selection_is_repeated(romexp: Command, tiny: list[str], selection: list[str]) -> None:
    plain = [a for a in tiny if not a.startswith("editor")]
    assert romexp(*plain, "editor=ft", *selection).status == 0
    assert romexp(*plain, "editor=none", "dataset.limit=1", "output_dir=outputs/one").status == 0
    before = cases(the_study())
    assert before["none"] == {0} != before["ft"]
    shown = romexp("task=report", "tracker=none", "task.figures=false")
    run_all(romexp, commands_of(shown.out))
    after = cases(the_study())
    assert after["none"] >= before["ft"] | {0}
    assert after["ft"] >= before["ft"] | {0}


def test_shards_and_unfinished_runs_go_on_where_they_are(tmp_path: Path) -> None:
    write_run(
        tmp_path / "a",
        range(2),
        selection={"shard": "1/2", "limit": 4},
        manifest={"overrides": ["editor=rome", "dataset.shard=1/2", "dataset.limit=4", "output_dir=mine"]},
    )
    (gap,) = study_gaps(the_study(tmp_path))
    assert gap.commands == ("romexp editor=rome dataset.limit=4 dataset.shard=2/2",), "its folder is another's"
    write_run(tmp_path / "b", range(2, 3), selection={"shard": "2/2", "limit": 4}, status="running")
    (gap,) = study_gaps(the_study(tmp_path))
    (command,) = gap.commands
    assert {"dataset.shard=2/2", "dataset.limit=4"} <= set(shlex.split(command))


def test_commands_are_joined_only_if_their_editor_alone_differs() -> None:
    one, two = "romexp model=m editor=ft dataset.limit=5", "romexp model=m editor=ft_l dataset.limit=5"
    assert as_few_commands([one, two, one]) == ("romexp -m model=m editor=ft,ft_l dataset.limit=5",)
    assert as_few_commands([one, two.replace("=5", "=6")]) == (one, two.replace("=5", "=6"))
    assert as_few_commands([one]) == (one,)
    odd = ["romexp 'prompt=a b' seed=1", "romexp 'prompt=a b' seed=2"]
    assert as_few_commands(odd) == tuple(odd)
