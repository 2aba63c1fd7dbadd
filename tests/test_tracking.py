"""A Weights & Biases run, written offline and read back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import Command

from romexp.errors import ConfigError
from romexp.tracking import NoTracker, Tracker, WandbTracker


def read(folder: Path) -> dict[str, Any]:
    """What `wandb leet inspect` finds in the one offline run below `folder`; `records` is its whole log."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(run)]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    summary = subprocess.run([*command, "--summary"], capture_output=True, text=True, check=True).stdout
    return {**json.loads(summary), "records": [json.loads(line) for line in log.splitlines()]}


CONFIG: dict[str, Any] = {"seed": 3, "editor": {"layer": 5}}


def report(tracker: Tracker, folder: Path, *, fail: bool = False, config: Mapping[str, Any] = CONFIG) -> str:
    folder.mkdir()
    run = tracker.run(folder=folder, name="one", group="g", job_type="edit", config=config)
    with run as tracked:
        tracked.log({"loss": 2.0})
        tracked.table("cases", ["case_id", "post/ES"], [[1, 1.0], [2, 0.0]])
        tracked.summary({"post/ES": 50.0})
        if fail:
            raise ValueError("stop")
        return tracked.location


def test_an_offline_run_holds_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    location = report(WandbTracker(mode="offline", tags=("a",)), tmp_path / "x")
    assert capfd.readouterr() == ("", ""), "the console is ours"
    assert Path(location).name.startswith("offline-run-")
    assert Path(location).is_dir()
    run = read(tmp_path / "x")
    assert run["config"] == {"seed": 3, "editor": {"layer": 5}}
    assert (run["name"], run["project"], run["tags"], run["exit_code"]) == ("one", "romexp", ["a"], 0)
    assert run["summary"]["post/ES"] == 50.0
    assert run["summary"]["loss"] == 2.0
    assert (run["summary"]["cases"]["ncols"], run["summary"]["cases"]["nrows"]) == (2, 2)
    (header,) = [record["run"] for record in run["records"] if record["type"] == "run"]
    assert (header["run_group"], header["job_type"]) == ("g", "edit")


def test_names_become_tags_and_a_config_that_groups(tmp_path: Path) -> None:
    names = {"task": "edit", "model": "m" * 80, "dataset": "minifact", "editor": "rome"}
    report(WandbTracker(mode="offline", tags=("mine", "rome")), tmp_path / "x", config={**CONFIG, "names": names})
    run = read(tmp_path / "x")
    assert set(run["tags"]) == {"mine", "rome", "edit", "m" * 64, "minifact"}, "each once, none too long for W&B"
    assert len(run["tags"]) == 5
    assert run["config"]["names"] == names


def test_a_real_run_can_be_grouped_by_its_names(tiny: list[str], romexp: Command, tmp_path: Path) -> None:
    done = romexp(*tiny, "dataset.limit=2", "tracker=wandb", "tracker.mode=offline", "output_dir=run")
    assert done.status == 0, done.err
    run = read(tmp_path / "run")
    names = run["config"]["names"]
    assert (names["task"], names["dataset"], names["editor"]) == ("edit", "counterfact", "rome")
    assert set(run["tags"]) == set(names.values())
    assert run["config"]["layer"] == run["config"]["editor"]["layer"] == 1, "layer curves are drawn over this"
    assert {"post/ES", "post/NS", "pre/ES"} <= set(run["summary"])
    assert run["config"]["hash"] == json.loads((tmp_path / "run" / "manifest.json").read_text())["hash"]


def test_every_job_has_its_own_run_even_after_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="stop"):
        report(WandbTracker(mode="offline"), tmp_path / "a", fail=True)
    report(WandbTracker(mode="offline"), tmp_path / "b")
    failed, good = read(tmp_path / "a"), read(tmp_path / "b")
    assert (failed["exit_code"], good["exit_code"]) == (1, 0)
    assert failed["run_id"] != good["run_id"]
    assert capfd.readouterr() == ("", ""), "no traceback of W&B's own"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "x" * 40}, "online"),
        ({"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_auto_goes_online_where_there_is_a_key(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert WandbTracker()._mode() == expected
    assert WandbTracker(mode="offline")._mode() == "offline"


def test_an_unknown_mode_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"tracker\.mode: 'on' is not auto, online or offline"):
        WandbTracker(mode="on")  # type: ignore[arg-type]


def test_no_tracker_leaves_nothing(tmp_path: Path) -> None:
    assert report(NoTracker(), tmp_path / "x") == ""
    assert list((tmp_path / "x").iterdir()) == []
