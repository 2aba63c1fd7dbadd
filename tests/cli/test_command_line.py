"""The command: mistakes end in one line, sweeps go on after a failing job, help helps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_runs import Command, rows

from romexp import __version__

MISTAKES = {
    "a misspelt key": (["editor.lyer=3"], "did you mean layer"),
    "a key that the class does not have": (
        ["+editor.lyer=3"],
        "editor.lyer: no such setting (did you mean layer or filter?)",
    ),
    "an unknown option": (["dataset=countrfact"], "counterfact"),
    "a missing value": (["corpus@covariance.corpus=text"], "covariance.corpus.path must be given"),
    "no such file": (["dataset=counterfact", "dataset.path=nowhere.json"], "nowhere.json: no such file"),
    "no such model": (["model=hf", "model.path=./nowhere"], "model.path"),
    "not a number": (["dataset.limit=many"], "dataset.limit: expected a valid integer"),
    "not a seed": (["seed=x"], "seed: expected a valid integer"),
    "not a switch": (["save_deltas=perhaps"], "save_deltas: expected a valid boolean"),
    "a switch that is a number": (["save_deltas=1"], "save_deltas: expected a valid boolean"),
    "a number that is a switch": (["editor.layer=true"], "editor.layer: expected a valid integer"),
    "a negative seed": (["seed=-1"], "seed: expected a number of at least 0, not -1"),
    "no number": (["editor.kl_factor=nan"], "editor.kl_factor: expected a valid number, which is finite, not nan"),
    "a negative rate": (["editor.v_lr=-1"], "editor.v_lr: expected a number of at least 0, not -1"),
    "one number for a list": (["dataset.case_ids=3"], "dataset.case_ids: expected a valid list ([3])"),
    "a group without an option": (["editor=null"], "editor: expected the name of an option (alphaedit, emmet, ft, "),
    "a list for a text": (["study=[a,b]"], "study: expected a valid string"),
    "records for a trace": (["task=trace", "prompt=[a,b]", "subject=a"], "dataset: traces need known facts"),
    "a sentence for an edit": (
        ["prompt=a b", "subject=a"],
        "prompt: task=edit does not read it (task=trace and task=try do)",
    ),
    "an unknown top-level key": (["+sed=3"], "sed: no such setting"),
    "a bad value": (["task.batch_size=0"], "task.batch_size"),
    "a bad switch": (["evaluator.generation=maybe"], "evaluator.generation"),
    "a layer the model lacks": (["editor.layer=77"], "editor.layer: 77"),
    "not Hydra's grammar": (["dataset.limit"], "dataset.limit"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line(romexp: Command, tiny: list[str], tmp_path: Path, mistake: str) -> None:
    arguments, expected = MISTAKES[mistake]
    done = romexp(*tiny, *arguments)
    assert done.status == 2
    assert done.err.startswith("romexp: error: ")
    assert done.err.count("\n") == 1, done.err
    assert expected in done.err
    assert done.out == ""


def test_words_and_whole_numbers_count_as_what_they_mean(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    common = [*tiny, "dataset.limit=2"]
    meant = romexp(*common, "output_dir=meant")
    values = ["dataset.limit=2e0", "editor.layer=1.0", "editor.v_num_grad_steps=6.0", "editor.mom2_adjustment=no"]
    other = romexp(*tiny, *values, "save_deltas=off", "task.batch_size=4.0", "output_dir=other")
    assert (meant.status, other.status) == (0, 0), other.err
    assert rows(tmp_path / "meant") == rows(tmp_path / "other")
    identities = [json.loads((tmp_path / name / "manifest.json").read_text())["hash"] for name in ("meant", "other")]
    assert identities[0] == identities[1]
    assert not (tmp_path / "other" / "deltas").exists(), "save_deltas=off"
    assert romexp(*common, "save_deltas=yes", "output_dir=kept").status == 0
    assert len(list((tmp_path / "kept" / "deltas").iterdir())) == 2


def test_the_version_is_that_of_romexp(romexp: Command) -> None:
    done = romexp("--version")
    assert done.status == 0
    assert re.fullmatch(rf"romexp {re.escape(__version__)}( \(commit [0-9a-f]{{40}}(\+changes)?\))?\n", done.out)


def test_records_of_another_kind_are_refused(romexp: Command, tiny: list[str]) -> None:
    given = [argument for argument in tiny if not argument.startswith("dataset")]
    done = romexp(*given, "dataset=minifact_known", "dataset.limit=3")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "task=edit needs cases to edit, minifact_known holds KnownFact records" in done.err


def test_the_traceback_can_be_had(romexp: Command, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" in romexp(*tiny, "task.batch_size=0", "debug=true").err
    monkeypatch.setenv("ROMEXP_TRACEBACK", "1")
    assert "Traceback" in romexp(*tiny, "task.batch_size=0").err


def test_a_fault_of_the_program_shows_its_traceback(
    romexp: Command, tiny: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr("romexp.tasks.edit_results.summarize_frame", broken)
    done = romexp(*tiny, "dataset.limit=1", "output_dir=run")
    assert done.status == 1
    assert "Traceback" in done.err
    assert (tmp_path / "run" / "status").read_text().strip() == "failed"
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["error"] == "broken"


def test_a_sweep_goes_on_after_a_failing_job(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    done = romexp(*tiny, "dataset.limit=1", "editor.layer=0,77,2", "-m")
    assert done.status == 2
    assert "editor.layer: 77" in done.err
    assert "1 of 3 jobs failed" in done.err
    runs = list((tmp_path / "outputs" / "edit" / "tiny" / "counterfact" / "rome").iterdir())
    layers = {rows(run)[0]["edit"]["layer"] for run in runs if (run / "cases.jsonl").exists()}
    assert layers == {0, 2}
    assert [p.name for p in tmp_path.iterdir()] == ["outputs"]


def test_help_shows_groups_and_examples(romexp: Command) -> None:
    done = romexp("--help")
    assert done.status == 0
    assert "dataset: counterfact, facts, known, minifact" in done.out
    assert "romexp model=gpt2-xl dataset=counterfact" in done.out


def test_a_shipped_sweep_is_found_from_anywhere(romexp: Command) -> None:
    done = romexp("-cn", "layers_minifact", "--cfg", "hydra")
    assert done.status == 0
    assert "range(0, 8)" in done.out
