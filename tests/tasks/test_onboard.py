"""task=onboard: what it measures, chooses and writes; that finished settings are not measured again; bad input."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import Command

from romexp.lm import check_edits
from romexp.tasks.onboard_scan import Scan

ONBOARD = ("task=onboard", "task.records=3", "task.layers=[0,1]", "task.rate_factors=[1,4]")


@pytest.fixture
def overrides(tiny: list[str]) -> list[str]:
    """A model without settings of its own: the layer is not chosen."""
    return [each for each in tiny if not each.startswith(("editor.layer=", "evaluator.generation="))]


def summary_of(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def scan_rows(folder: Path) -> dict[str, int]:
    """When the rows of each run of the scan were written last."""
    return {str(file): file.stat().st_mtime_ns for file in sorted(folder.glob("runs/edit/**/cases.jsonl"))}


def test_it_writes_settings_that_an_edit_uses(
    romexp: Command, overrides: list[str], tiny_dir: Path, tmp_path: Path
) -> None:
    named = (*overrides, *ONBOARD, "task.name=my.tiny-1", "output_dir=found")
    assert "settings: 2 layers and 2 learning rates, at most about" in romexp(*named, "dry_run=true").out
    assert not (tmp_path / "found").exists()
    done = romexp(*named)
    assert done.status == 0, done.err
    assert "not tuned" not in done.err
    summary = summary_of(tmp_path / "found")
    assert [entry["value"] for entry in summary["layers"]] == [0, 1]
    best = max(summary["layers"], key=lambda entry: (entry["post"]["S"]["mean"], entry["post"]["PM"]["mean"]))
    assert summary["chosen"]["layer"] == best["value"]
    assert best["behind"] is None
    assert [entry["value"] for entry in summary["rates"]] == [0.1, 0.4]
    assert all(check["measured"] <= check["limit"] for check in summary["checks"])
    assert len(summary["checks"]) > 10

    conf = tmp_path / "found" / "conf"
    model = yaml.safe_load((conf / "model" / "my.tiny-1.yaml").read_text())
    assert model["path"] == str(tiny_dir)
    editor_file = conf / "editor_model" / "rome_my.tiny-1.yaml"
    settings = yaml.safe_load(editor_file.read_text())
    assert settings["layer"] == best["value"]
    assert settings["v_lr"] == summary["chosen"]["v_lr"]
    assert settings["mom2_adjustment"] is False, "it was measured with it"
    assert "3 records of counterfact" in editor_file.read_text()
    assert str(conf) in done.out
    assert (tmp_path / "found" / "onboard.html").is_file()

    command = shlex.split(summary["command"])
    assert command[0] == "romexp"
    used = romexp(*command[1:], "dataset.limit=1", "tracker=none", *overrides[-1:], "output_dir=used")
    assert used.status == 0, used.err
    assert "not tuned" not in used.err
    editor = json.loads((tmp_path / "used" / "manifest.json").read_text())["identity"]["editor"]
    assert {name: editor[name] for name in settings if name != "context_templates"} == {
        name: value for name, value in settings.items() if name != "context_templates"
    }

    other = romexp(*named, "model.matmul_precision=medium")
    assert other.status == 2, "another precision is another run"
    assert "model.matmul_precision is None there" in other.err

    row = summary["rates"][1]  # a row of the scan is the run of its command
    again = romexp(*shlex.split(row["command"])[1:])
    assert "finished before" in again.err
    assert row["folder"] in again.out.replace("\n", "")


def test_what_was_measured_is_not_measured_again(
    romexp: Command, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = (*overrides, *ONBOARD, "task.records=2", "output_dir=found")
    run = Scan._run
    calls: list[Any] = []

    def killed(self: Scan, setting: str, value: float, *rest: Any) -> Any:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(value)
        return run(self, setting, value, *rest)

    monkeypatch.setattr(Scan, "_run", killed)
    assert romexp(*few).status != 0
    first = scan_rows(tmp_path / "found")
    assert len(first) == 1
    monkeypatch.setattr(Scan, "_run", run)
    assert romexp(*few).status == 0
    second = scan_rows(tmp_path / "found")
    assert len(second) == 3
    assert {file: second[file] for file in first} == first
    again = romexp(*few)
    assert "finished before" in again.err
    assert "checks: all" in again.out
    assert scan_rows(tmp_path / "found") == second
    (tmp_path / "found" / "onboard.html").unlink()
    assert romexp(*few).status == 0
    assert (tmp_path / "found" / "onboard.html").is_file()
    assert scan_rows(tmp_path / "found") == second


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["task.records=13"], "task.records: 13 records are asked for"),
        (["task.records=1"], "task.records: expected at least 2"),
        (["task.layers=[1,99]"], "task.layers: 99 is outside 0…"),
        (["task.layers=[]"], "task.layers: expected a list"),
        (["task.layer_fractions=[1.5]"], "task.layer_fractions: expected numbers from 0 to 1"),
        (["task.rate_factors=[-1]"], "task.rate_factors: expected a list"),
        (["task.name=gpt2-xl"], "model=gpt2-xl ships with romexp"),
        (["task.name='a/b'"], "task.name: 'a/b' is no name"),
        (["task.conf_dir=taken"], "taken/model"),
        (["task.conf_dir=mine", "task.name=tiny"], "mine/editor_model/rome_tiny.yaml exists already"),
        (["task.conf_dir=others", "task.name=tiny"], "others/model/tiny.yaml exists already and is another model's"),
    ],
)
def test_bad_input_is_one_line(
    romexp: Command, overrides: list[str], tmp_path: Path, changes: list[str], said: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    for folder, file in (("mine", "editor_model/rome_tiny.yaml"), ("others", "model/tiny.yaml")):
        (tmp_path / folder / file).parent.mkdir(parents=True)
        (tmp_path / folder / file).write_text("layer: 3\n")
    done = romexp(*overrides, *ONBOARD, *changes)
    assert done.status == 2
    errors = [line for line in done.err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("outputs/edit/**/cases.jsonl"))


def test_a_failed_check_ends_it(
    romexp: Command, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_edits, "_share", lambda *_: 0.5)
    done = romexp(*overrides, *ONBOARD, "output_dir=found")
    assert done.status == 2
    (line,) = [line for line in done.err.splitlines() if "error:" in line]
    assert "cannot be used" in line
    assert "check 'k·W of layer 0 = the recorded output'" in line
    assert not list((tmp_path / "found").glob("*.html"))


def test_records_that_have_no_score(romexp: Command, overrides: list[str], tmp_path: Path) -> None:
    facts = [{"subject": name, "prompt": "{} plays the", "target_new": "violin"} for name in ("Bob", "Paris")]
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    general = [each for each in overrides if not each.startswith("dataset")]
    done = romexp(*general, *ONBOARD, "task.records=2", "dataset=facts", "dataset.path=facts.json")
    assert done.status == 2
    assert "facts.json: no record has paraphrase_prompts" in done.err


def test_an_editor_without_a_layer(romexp: Command, overrides: list[str]) -> None:
    general = [each for each in overrides if not each.startswith("editor")]
    done = romexp(*general, *ONBOARD, "editor=memit")
    assert done.status == 2
    assert "choose editor=rome, ft, ft_l or ft_attn" in done.err


def test_fine_tuning_into_the_same_folder(romexp: Command, overrides: list[str], tmp_path: Path) -> None:
    short = ("task.records=2", "task.layers=[1]", "task.rate_factors=[1]", "task.conf_dir=mine")
    assert romexp(*overrides, "task=onboard", *short).status == 0
    general = [each for each in overrides if not each.startswith("editor")]
    done = romexp(*general, "task=onboard", *short, "editor=ft", "editor.num_steps=2")
    assert done.status == 0, done.err
    (file,) = (tmp_path / "mine" / "editor_model").glob("ft_*.yaml")
    assert yaml.safe_load(file.read_text()) == {"layer": 1, "lr": 5e-4, "num_steps": 2}
    assert len(list((tmp_path / "mine" / "editor_model").iterdir())) == 2
    assert len(list((tmp_path / "mine" / "model").iterdir())) == 1
