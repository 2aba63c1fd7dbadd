"""What a tracker gets while a run of edits goes on, read back: running means over cases, losses of a sample."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from live_points import means, metrics
from test_tracking import read
from tiny_runs import Command, rows

from romexp.results.folder import RunFolder
from romexp.tasks.live import sample_of

BATCHES = ("task.batch_size=4", "task.tracked_cases=2")
SECRET = "+hydra.job.env_set.HF_TOKEN=hf_abc"


def without_tracker(overrides: list[str]) -> list[str]:
    return [each for each in overrides if each != "tracker=none"]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def edited(romexp: Command, tiny: list[str], tmp_path: Path, made_once: Path) -> Path:
    """A run of three batches, reported to each tracker that writes into the result folder and is installed."""
    if not (made_once / "run").exists():
        trackers = ["tracker=many", "tracker.trackers.wandb.mode=offline"]
        trackers += ["+tracker@tracker.trackers.board=tensorboard"] if find_spec("tensorboard") else []
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, "commit", "-qm", "x", "--allow-empty"], check=True)
        done = romexp(*without_tracker(tiny), *BATCHES, *trackers, SECRET, f"output_dir={made_once}/run")
        assert done.status == 0, done.err
    return Path(shutil.copytree(made_once / "run", tmp_path / "run"))


def test_running_means_end_at_the_summary(edited: Path) -> None:
    shown = metrics(edited)
    assert shown["n_cases"].tolist() == [4, 8, 12]
    wanted = means(edited, "pre", "post")
    assert {"post/S", "post/ES", "post/EM", "pre/NM"} <= set(wanted) == set(shown) - {"n_cases"}
    assert shown.iloc[-1][list(wanted)].to_dict() == wanted, "to the last digit"
    cases = pd.read_parquet(edited / "cases.parquet")
    for at, count in enumerate((4, 8)):
        assert shown["post/EM"][at] == pytest.approx(100 * cases["post/EM"][:count].mean()), "in percent, of so many"
    assert shown["post/EM"].nunique() == 3


def test_losses_of_a_sample(edited: Path) -> None:
    shown = pd.read_csv(edited / "csv" / "loss.csv")
    assert list(shown) == ["line", "optimizer_step", "loss"]
    by_case = {row["case_id"]: row["edit"]["loss"] for row in rows(edited)}
    sample = sample_of(by_case, 2, seed=0)
    assert set(shown["line"]) == sample
    assert len(sample) == 2
    for case_id, part in shown.groupby("line"):
        assert part["loss"].tolist() == pytest.approx(by_case[case_id], rel=1e-12)
        assert part["optimizer_step"].tolist() == list(range(len(part)))
    assert sample_of(sorted(by_case, reverse=True), 2, seed=0) == sample != sample_of(by_case, 2, seed=1)
    assert sample_of(by_case, 0, seed=0) == frozenset()


def test_wandb_draws_over_cases(edited: Path) -> None:
    run = read(edited)
    defined = [record["metric"] for record in run["records"] if record["type"] == "metric"]
    axes = {each["name"]: each.get("step_metric") for each in defined}
    assert axes["post/ES"] == axes["pre/S"] == "n_cases"
    points = [record["history"]["item"] for record in run["records"] if record["type"] == "history"]
    assert [point["n_cases"] for point in points if "n_cases" in point] == [4, 8, 12]
    assert run["summary"]["post/EM"] == means(edited, "post")["post/EM"]
    media = next((edited / "wandb").glob("offline-run-*")) / "files" / "media"
    tables = [json.loads(file.read_text()) for file in (media / "table").glob("loss_table*.json")]
    lines = [{str(row[table["columns"].index("lineKey")]) for row in table["data"]} for table in tables]
    assert set(map(str, sample_of(range(12), 2, seed=0))) in lines, "the newest chart has all lines"
    assert list((media / "images").glob("boxes*.png"))
    assert not (edited / "figures").exists(), "results on disk do not depend on the tracker"
    session = json.loads((edited / "manifest.json").read_text())["sessions"][0]
    for name in ("command", "commit", "folder_commit", "host"):
        assert run["config"].get(name) == session[name], name


def test_tensorboard_steps_are_cases(edited: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(edited / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    points = events.Scalars("post/EM")
    assert [event.step for event in points] == [4, 8, 12]
    assert points[-1].value == pytest.approx(means(edited, "post")["post/EM"], rel=1e-6)
    by_case = {row["case_id"]: row["edit"]["loss"] for row in rows(edited)}
    for number in sample_of(by_case, 2, seed=0):
        line = events.Scalars(f"loss/{number}")
        assert [event.step for event in line] == list(range(len(by_case[number])))
        assert [event.value for event in line] == pytest.approx(by_case[number], rel=1e-6)
    assert "boxes" in events.Tags()["images"]


def test_the_record_has_command_commit_and_host(edited: Path) -> None:
    manifest = json.loads((edited / "manifest.json").read_text())
    (session,) = manifest["sessions"]
    assert session["command"].startswith("romexp ")
    assert "task.batch_size=4" in session["command"].split()
    assert "HF_TOKEN=***" in session["command"]
    assert session["host"]
    assert session["folder_commit"], "of the user's own project"
    assert not any(b"hf_abc" in file.read_bytes() for file in edited.rglob("*") if file.is_file())
    recorded = {"command", "commit", "folder_commit", "host", "tracked_cases"}
    assert not recorded & set(_keys(manifest["identity"])), "they do not affect the result"


def _keys(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [*value, *(key for inner in value.values() for key in _keys(inner))]


def test_a_resumed_run_counts_the_cases_of_before(
    edited: Path, romexp: Command, tiny: list[str], tmp_path: Path
) -> None:
    whole, file = metrics(edited), edited / "cases.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:5]))
    shutil.rmtree(edited / "csv")
    RunFolder(edited).set_status("running")
    assert romexp(*without_tracker(tiny), *BATCHES, "tracker=csv", "output_dir=run").status == 0
    shown = metrics(edited)
    assert shown["n_cases"].tolist() == [9, 12], "5 were done"
    assert shown.iloc[-1].to_dict() == pytest.approx(whole.iloc[-1].to_dict(), rel=1e-4, abs=1e-4)
    assert shown.iloc[-1][list(means(edited, "post"))].to_dict() == means(edited, "post")


def test_the_sample_is_no_part_of_the_identity(edited: Path, romexp: Command, tiny: list[str]) -> None:
    again = romexp(*tiny, "task.tracked_cases=0", "output_dir=run")
    assert again.status == 0
    assert "finished before" in again.err
