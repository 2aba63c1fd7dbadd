"""Each tracker's run, read back by its own library's reader; skipped where the library is not installed."""

from __future__ import annotations

import csv
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.image import imsave
from tiny_runs import ROOT, Command

from romexp.errors import ConfigError
from romexp.trackers.csv_files import CsvTracker
from romexp.trackers.many import ManyTrackers
from romexp.trackers.mlflow import MlflowTracker
from romexp.trackers.tensorboard import MOST_ROWS, TensorBoardTracker
from romexp.trackers.trackio import TrackioTracker
from romexp.tracking import NoTracker, TrackedRun, Tracker

CONFIG: dict[str, Any] = {
    "seed": 3,
    "study": "fig5",
    "editor": {"layer": 5, "bound": None},
    "names": {"task": "edit", "editor": "rome"},
}


def report(tracker: Tracker, folder: Path, *, fail: bool = False) -> str:
    """Report two steps, two points over cases, two lines, a table, a summary and a picture; return where the run is."""
    folder.mkdir(exist_ok=True)
    imsave(folder / "curve.png", np.zeros((4, 6, 3)))
    with tracker.run(folder=folder, name="one", group="model data", job_type="edit", config=CONFIG) as run:
        run.log({"loss": 2.0})
        run.log({"loss": 1.0, "val/loss": 4.0})
        run.log({"post/ES": 40.0}, step=25, axis="n_cases")
        run.lines("v", {"7": [3.0, 2.0], "9": [5.0]}, axis="optimizer_step")
        run.log({"post/ES": 50.0}, step=50, axis="n_cases")
        run.table("cases", ["case_id", "text"], [[1, "a|b\nc"], [2, "Zoë"]])
        run.summary({"post/S": 50.0, "post/ES": 50.0, "n": 2, "not_tuned": "layer"})
        run.images({"curve": folder / "curve.png"})
        if fail:
            raise ValueError("stop")
        return run.location


def test_csv_is_what_pandas_reads(tmp_path: Path) -> None:
    location = Path(report(CsvTracker(tags=("draft",)), tmp_path))
    metrics = pd.read_csv(location / "metrics.csv")
    assert list(metrics) == ["step", "loss", "val/loss", "n_cases", "post/ES"]
    assert metrics["loss"].tolist()[:2] == [2.0, 1.0]
    assert metrics["val/loss"].isna().tolist() == [True, False, True, True]
    assert metrics[["n_cases", "post/ES"]].dropna().values.tolist() == [[25, 40], [50, 50]]
    assert metrics["step"].isna().tolist() == [False, False, True, True]
    lines = pd.read_csv(location / "v.csv")
    assert list(lines) == ["line", "optimizer_step", "v"]
    assert lines.values.tolist() == [[7, 0, 3], [7, 1, 2], [9, 0, 5]]
    assert pd.read_csv(location / "images.csv").values.tolist() == [["curve", str(tmp_path / "curve.png")]]
    assert pd.read_csv(location / "cases.csv")["text"].tolist() == ["a|b\nc", "Zoë"]
    assert pd.read_csv(location / "summary.csv", index_col="name")["value"]["post/S"] == "50.0"
    about = yaml.safe_load((location / "run.yaml").read_text())
    assert about == {"name": "one", "group": "fig5", "job_type": "edit", "tags": ["draft", "edit", "rome"]}


def test_csv_goes_on_where_the_run_was_stopped(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"):
        report(CsvTracker(), tmp_path, fail=True)
    metrics = pd.read_csv(Path(report(CsvTracker(), tmp_path)) / "metrics.csv")
    assert metrics["step"].dropna().tolist() == [1, 2, 3, 4]
    assert metrics["loss"].dropna().tolist() == [2.0, 1.0, 2.0, 1.0]
    assert len(pd.read_csv(tmp_path / "csv" / "v.csv")) == 6


def test_tensorboard_holds_everything(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    location = report(TensorBoardTracker(tags=("draft",)), tmp_path)
    events = accumulator.EventAccumulator(location, size_guidance={"tensors": 0})
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 2.0), (2, 1.0)]
    assert [e.value for e in events.Scalars("post/S")] == [50.0]
    assert [(e.step, e.value) for e in events.Scalars("post/ES")] == [(25, 40.0), (50, 50.0)], "no point twice"
    assert [(e.step, e.value) for e in events.Scalars("v/7")] == [(0, 3.0), (1, 2.0)]
    assert [(e.step, e.value) for e in events.Scalars("v/9")] == [(0, 5.0)]
    assert (events.Images("curve")[0].width, events.Images("curve")[0].height) == (6, 4)

    def text(name: str) -> str:
        return events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()

    assert text("cases").splitlines()[2:] == ["| 1 | a\\|b c |", "| 2 | Zoë |"]
    assert "layer: 5" in text("config")
    assert "- draft" in text("run")
    assert text("not_tuned") == "layer"


def test_tensorboard_says_what_it_leaves_out(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with TensorBoardTracker().run(folder=tmp_path, name="n", group="g", job_type="edit", config={}) as run:
        run.table("cases", ["case_id"], [[n] for n in range(MOST_ROWS + 1)])
    events = accumulator.EventAccumulator(run.location)
    events.Reload()
    (shown,) = events.Tensors("cases/text_summary")[0].tensor_proto.string_val
    assert f"the first {MOST_ROWS} of {MOST_ROWS + 1}" in shown.decode()


def test_mlflow_holds_everything(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic", reason="MLflow's database needs it")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri)
    client.create_experiment("mine", artifact_location=(tmp_path / "artifacts").as_uri())
    location = report(MlflowTracker(uri=uri, experiment="mine", tags=("draft",)), tmp_path)
    with pytest.raises(ValueError, match="stop"):
        report(MlflowTracker(uri=uri, experiment="mine"), tmp_path, fail=True)
    (experiment,) = [e for e in client.search_experiments() if e.name == "mine"]
    runs = client.search_runs([experiment.experiment_id], order_by=["attribute.start_time"])
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]
    run = runs[0]
    assert location == f"{uri}, run {run.info.run_id}"
    last = {"loss": 1.0, "val/loss": 4.0, "post/S": 50.0, "post/ES": 50.0, "n": 2.0}
    assert run.data.metrics == last | {"v/7": 2.0, "v/9": 5.0}
    points = {name: client.get_metric_history(run.info.run_id, name) for name in ("post/ES", "v/7")}
    assert [(m.step, m.value) for m in points["post/ES"]][:2] == [(25, 40.0), (50, 50.0)]
    assert [(m.step, m.value) for m in points["v/7"]] == [(0, 3.0), (1, 2.0)]
    assert (run.data.params["editor.layer"], run.data.params["editor.bound"]) == ("5", "None")
    tags = {"group": "fig5", "job_type": "edit", "draft": "true", "rome": "true", "not_tuned": "layer"}
    assert tags.items() <= run.data.tags.items()
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(1, 2.0), (2, 1.0)]
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == {"cases.json", "figures"}


TRACKIO = """
import json, sys
from pathlib import Path
from test_trackers import report
from romexp.trackers.trackio import TrackioTracker
print(report(TrackioTracker(project="mine", tags=("draft",)), Path(sys.argv[1])))
from trackio.sqlite_storage import SQLiteStorage as store
(run,) = store.get_runs("mine")
print(json.dumps([run, store.get_logs("mine", run), store.get_run_config("mine", run)], default=str))
"""


def test_trackio_holds_everything(tmp_path: Path) -> None:
    """It takes its folder from the environment when it is imported, so it runs in a process of its own."""
    pytest.importorskip("trackio")
    paths = [ROOT, ROOT / "tests" / "tasks", Path(__file__).parent]
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": ":".join(map(str, paths))}
    command = [sys.executable, "-c", TRACKIO, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    said, stored = done.stdout.splitlines()
    run, logs, config = json.loads(stored)
    assert said == f"project mine, run {run}"
    assert [entry["loss"] for entry in logs if "loss" in entry] == [2.0, 1.0]
    assert [entry["post/S"] for entry in logs if "post/S" in entry] == [50.0]
    points = [(entry["step"], entry["post/ES"]) for entry in logs if "post/ES" in entry]
    assert points == [(25, 40.0), (50, 50.0), (50, 50.0)], "the final number is at the last case too"
    assert [(entry["step"], entry["v/7"]) for entry in logs if "v/7" in entry] == [(0, 3.0), (1, 2.0)]
    assert next(entry["cases"]["_value"] for entry in logs if "cases" in entry)[1]["text"] == "Zoë"
    assert {"editor.layer": "5", "tags": "draft, edit, rome"}.items() <= config.items()


def test_many_reports_to_each(tmp_path: Path) -> None:
    two = ManyTrackers(trackers={"a": CsvTracker(), "b": CsvTracker()})
    assert report(two, tmp_path / "two").splitlines() == [str(tmp_path / "two" / "csv")] * 2
    many = ManyTrackers(trackers={"csv": CsvTracker(), "none": NoTracker(), "left_out": None})
    assert report(many, tmp_path) == str(tmp_path / "csv")
    assert len(pd.read_csv(tmp_path / "csv" / "metrics.csv")) == 4
    with pytest.raises(ConfigError, match=r"^tracker\.trackers: there is none"):
        ManyTrackers(trackers={"wandb": None})


def test_what_a_tracker_loses_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> None:
        raise OSError("No space left on device")

    with CsvTracker().run(folder=tmp_path, name="n", group="g", job_type="edit", config={}) as run:
        monkeypatch.setattr(csv, "writer", full)
        run.log({"a": 1.0})
        run.summary({"a": 1.0})
    assert [record.getMessage() for record in caplog.records] == [
        "csv did not take all of this run: No space left on device"
    ]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "trackio"])
def test_a_missing_library_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackers: Mapping[str, Tracker] = {
        "tensorboard": TensorBoardTracker(), "mlflow": MlflowTracker(), "trackio": TrackioTracker(),
    }  # fmt: skip
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ConfigError, match=rf"^tracker={name}: a package is not installed: pip install 'romexp\[{name}\]'$"
    ):
        report(trackers[name], tmp_path)


def test_the_command_says_where_the_run_is(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    given = [*(each for each in tiny if each != "tracker=none"), "dataset.limit=2", "output_dir=run"]
    done = romexp(*given, "tracker=csv", "tags=[draft]")
    assert done.status == 0, done.err
    assert "CSV files: run/csv\n" in done.out
    summary = pd.read_csv(tmp_path / "run" / "csv" / "summary.csv", index_col="name")["value"]
    assert {"post/S", "post/ES", "n_cases"} <= set(summary.index)
    assert len(pd.read_csv(tmp_path / "run" / "csv" / "cases.csv")) == 2
    assert "draft" in yaml.safe_load((tmp_path / "run" / "csv" / "run.yaml").read_text())["tags"]
    again = romexp(*given, "tracker=none")
    assert "CSV files: run/csv\n" in again.out, "the run's own tracker, not that of the command"


def test_many_can_be_given_more_and_less(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    given = [*(each for each in tiny if each != "tracker=none"), "dataset.limit=1", "output_dir=run", "tracker=many"]
    done = romexp(*given, "tracker.trackers.wandb=null", "+tracker@tracker.trackers.nothing=none")
    assert done.status == 0, done.err
    assert "tracked: run/csv\n" in done.out


def test_every_adapter_is_a_tracked_run() -> None:
    """The protocol's methods; a new one belongs into each adapter."""
    wanted = {name for name in vars(TrackedRun) if not name.startswith("_")}
    from romexp import tracking
    from romexp.trackers import csv_files, guard, many, mlflow, tensorboard, trackio
    from romexp.wandb_run import WandbRun

    for cls in (
        csv_files._CsvRun, guard.Guarded, many._ManyRuns, mlflow._MlflowRun, tensorboard._TensorBoardRun,
        trackio._TrackioRun, WandbRun, tracking._UntrackedRun,
    ):  # fmt: skip
        assert wanted <= {*vars(cls), *getattr(cls, "__annotations__", {})}, cls
