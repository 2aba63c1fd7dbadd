"""What a tracker gets while a run goes on, read back: running means over cases or edits, losses of a sample."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_lifelong_task import many
from test_tracking import read
from test_train import SETTINGS, SMALL
from tiny_runs import Command, rows

from romexp.results.folder import RunFolder
from romexp.tasks.live import sample_of

__all__ = ["many"]  # a fixture

STEPS = ("tracker=csv", "task.batch_size=4", "task.tracked_cases=2")


def given(overrides: list[str], *more: str) -> list[str]:
    return [*(each for each in overrides if each != "tracker=none"), *more]


def means(folder: Path, *parts: str) -> dict[str, float]:
    """The means of the run's summary, under the names that a tracker gets."""
    summary = RunFolder(folder).read("summary") or {}
    return {f"{part}/{name}": entry["mean"] for part in parts for name, entry in summary[part].items()}


def metrics(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "csv" / "metrics.csv", float_precision="round_trip")


@pytest.fixture
def edited(romexp: Command, tiny: list[str], tmp_path: Path) -> Path:
    """A run of three batches."""
    done = romexp(*given(tiny, *STEPS), "output_dir=run")
    assert done.status == 0, done.err
    return tmp_path / "run"


def test_running_means_end_at_the_summary(edited: Path) -> None:
    shown = metrics(edited)
    assert shown["n_cases"].tolist() == [4, 8, 12]
    wanted = means(edited, "pre", "post")
    assert {"post/S", "post/ES", "post/EM", "pre/NM"} <= set(wanted) == set(shown) - {"n_cases"}
    assert shown.iloc[-1][list(wanted)].to_dict() == wanted, "to the last digit"
    cases = pd.read_parquet(edited / "cases.parquet")
    for count in (4, 8):
        here = shown[shown["n_cases"] == count].iloc[0]
        assert here["post/EM"] == pytest.approx(100 * cases["post/EM"][:count].mean()), "in percent, of so many cases"
    assert shown["post/EM"].nunique() == 3


def test_a_resumed_run_counts_the_cases_of_before(
    edited: Path, romexp: Command, tiny: list[str], tmp_path: Path
) -> None:
    whole, file = metrics(edited), edited / "cases.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:5]))
    shutil.rmtree(edited / "csv")
    RunFolder(edited).set_status("running")
    assert romexp(*given(tiny, *STEPS), "output_dir=run").status == 0
    shown = metrics(edited)
    assert shown["n_cases"].tolist() == [9, 12], "5 were done"
    pd.testing.assert_series_equal(shown.iloc[-1], whole.iloc[-1], check_names=False, rtol=1e-9)


def test_losses_of_a_sample(edited: Path) -> None:
    shown = pd.read_csv(edited / "csv" / "loss.csv", float_precision="round_trip")
    assert list(shown) == ["line", "optimizer_step", "loss"]
    found = {int(case): part["loss"].tolist() for case, part in shown.groupby("line")}
    by_case = {row["case_id"]: row["edit"]["loss"] for row in rows(edited)}
    sample = sample_of(by_case, 2, seed=0)
    assert found == {case_id: by_case[case_id] for case_id in sample}
    assert len(found) == 2
    assert all(part["optimizer_step"].tolist() == list(range(len(part))) for _, part in shown.groupby("line"))
    assert sample_of(sorted(by_case, reverse=True), 2, seed=0) == sample != sample_of(by_case, 2, seed=1)


def test_the_sample_is_no_part_of_the_identity(edited: Path, romexp: Command, tiny: list[str]) -> None:
    again = romexp(*given(tiny, *STEPS), "task.tracked_cases=0", "output_dir=run")
    assert again.status == 0
    assert "finished before" in again.err
    bad = romexp(*given(tiny, *STEPS), "task.tracked_cases=-1", "output_dir=run")
    assert bad.status == 2
    assert "task.tracked_cases: expected a number of at least 0, not -1" in bad.err


def test_wandb_draws_over_cases(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    done = romexp(*given(tiny, *STEPS[1:]), "tracker=wandb", "tracker.mode=offline", "output_dir=run")
    assert done.status == 0, done.err
    run = read(tmp_path / "run")
    axes = {each["metric"]["name"]: each.get("metric", {}) | each for each in map(flat_metric, run["records"]) if each}
    assert axes["post/ES"]["step_metric"] == "n_cases"
    points = [record["history"]["item"] for record in run["records"] if record["type"] == "history"]
    assert [point["n_cases"] for point in points if "n_cases" in point] == [4, 8, 12]
    assert run["summary"]["post/EM"] == means(tmp_path / "run", "post")["post/EM"]
    folder = next((tmp_path / "run" / "wandb").glob("offline-run-*")) / "files" / "media"
    tables = [json.loads(file.read_text()) for file in (folder / "table").glob("loss_table*.json")]
    assert tables, "a chart of lines, which is drawn from a table"
    newest = max(tables, key=lambda table: len(table["data"]))
    assert {str(row[newest["columns"].index("lineKey")]) for row in newest["data"]} == {
        str(number) for number in sample_of(range(12), 2, seed=0)
    }
    assert list((folder / "images").glob("boxes*.png"))
    assert not (tmp_path / "run" / "figures").exists(), "results on disk do not depend on the tracker"


def flat_metric(record: dict[str, Any]) -> dict[str, Any] | None:
    if record["type"] != "metric":
        return None
    return {"metric": record["metric"], "step_metric": record.get("step_metric") or record["metric"].get("step_metric")}


def test_tensorboard_steps_are_cases(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = romexp(*given(tiny, *STEPS[1:]), "tracker=tensorboard", "output_dir=run")
    assert done.status == 0, done.err
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("post/EM")] == [4, 8, 12]
    last = events.Scalars("post/EM")[-1].value
    assert last == pytest.approx(means(tmp_path / "run", "post")["post/EM"], rel=1e-6)
    by_case = {row["case_id"]: row["edit"]["loss"] for row in rows(tmp_path / "run")}
    for number in sample_of(by_case, 2, seed=0):
        line = events.Scalars(f"loss/{number}")
        assert [event.step for event in line] == list(range(len(by_case[number])))
        assert [event.value for event in line] == pytest.approx(by_case[number], rel=1e-6)
    assert "boxes" in events.Tags()["images"]


def test_a_sequence_of_edits(romexp: Command, many: list[str], tmp_path: Path) -> None:
    steps = ["tracker=csv", "task.edits=6", "task.step=2", "task.checkpoints=[4]", "task.watch=null"]
    done = romexp(*given(many, *steps), "task.tracked_cases=3", "output_dir=run")
    assert done.status == 0, done.err
    shown = metrics(tmp_path / "run")
    assert shown["edits"].tolist() == [2, 4, 6]
    assert shown["final/EM"].isna().tolist() == [True, False, False], "only where all cases were measured"
    wanted = means(tmp_path / "run", "pre", "immediate", "final")
    assert shown.iloc[-1][list(wanted)].to_dict() == wanted
    immediate = [row for row in rows(tmp_path / "run") if row["edited_at"] == row["measured_at"]]
    losses = pd.read_csv(tmp_path / "run" / "csv" / "loss.csv")
    assert set(losses["line"]) == sample_of([row["case_id"] for row in immediate], 3, seed=0)

    whole, file = shown, tmp_path / "run" / "cases.jsonl"
    assert len(file.read_bytes().splitlines()) == 2 + 4 + 6
    assert whole["immediate/EM"].nunique() > 1


def test_traces_count_facts(romexp: Command, tmp_path: Path) -> None:
    trace = ["task=trace", "model=minifact", "dataset.limit=4", "task.batch_size=2", "task.heatmaps=1"]
    few = ["tracer.samples=2", "tracer.kinds=[mlp]", "tracer.severed=false"]
    done = romexp(*trace, *few, "tracker=csv", "output_dir=run")
    assert done.status == 0, done.err
    shown = metrics(tmp_path / "run")
    assert shown["n_facts"].tolist() == [2, 4]
    summary = RunFolder(tmp_path / "run").read("summary") or {}
    assert shown["ate"].tolist()[-1] == summary["ate"]["mean"]
    assert shown["peak/mlp"].tolist()[-1] == summary["peaks"]["mlp"]["aie"]
    assert shown["ate"].nunique() == 2
    pictures = pd.read_csv(tmp_path / "run" / "csv" / "images.csv")
    assert {"trace_0", "average_heatmaps"} & set(pictures["name"])
    assert all((tmp_path / path).is_file() for path in pictures["path"])


def test_training_curves_stand_at_their_steps(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(f"Anna and Bob play the piano in Paris {i}.\n" for i in range(20)))
    kept = [each for each in tiny if each.startswith(("model", "cache_dir", "dataset"))]
    text = f"task.locality.corpus.path={tmp_path}/text.txt"
    small = [*SMALL["mend"], "dataset.limit=8"]
    done = romexp("task=train", *kept, *SETTINGS, text, *small, "tracker=csv", "output_dir=run")
    assert done.status == 0, done.err
    shown = metrics(tmp_path / "run")
    validated = shown[shown["validation/total_loss"].notna()]
    assert validated["step"].tolist() == [1, 4, 8]
