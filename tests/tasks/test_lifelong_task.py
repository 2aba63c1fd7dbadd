"""`task=lifelong`: rows that say when, a state in a file, the same bits after a kill, and one line for bad input."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from live_points import means, metrics
from tiny_runs import Command, record, rows, start

from romexp.editors.sequence import SequenceState
from romexp.errors import ConfigError
from romexp.files import write_text
from romexp.lm.weight_delta import WeightDelta
from romexp.results import progress
from romexp.results.folder import RunFolder
from romexp.tasks.live import LiveSequence, sample_of
from romexp.trackers.csv_files import CsvTracker

ROME = ("editor=rome", "editor.layer=1", "editor.mom2_adjustment=false")


@pytest.fixture(scope="module")
def many(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for MEMIT on two layers of the tiny model, with one file for both second moments."""
    keys = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    moment = (keys.T @ keys / 300).numpy()
    path = tmp_path_factory.mktemp("moments") / "moments.npz"
    np.savez(path, layer1=moment, layer2=moment, tokens=300)
    kept = [each for each in tiny if not each.startswith(("editor=", "editor.layer", "editor.mom2"))]
    return [
        *kept,
        "task=lifelong",
        "editor=memit",
        "editor.layers=[1,2]",
        "editor.mom2_update_weight=2",
        f"covariance.path={path}",
    ]


def summary_of(folder: Path) -> dict[str, Any]:
    found = RunFolder(folder).read("summary")
    assert found is not None
    return found


def check_points(run: Path, found: list[dict[str, Any]]) -> None:
    """What the tracker got of a sequence of 10 edits, 4 at a time, with checkpoints at 4 and 8."""
    shown = metrics(run)
    watched = shown["watch/perplexity"].notna()
    assert shown["edits"][watched].tolist() == [0, 4, 8, 10]
    shown = shown[~watched].reset_index(drop=True)
    assert shown["edits"].tolist() == [4, 8, 10]
    wanted = means(run, "pre", "immediate", "final")
    assert shown.iloc[-1][list(wanted)].to_dict() == wanted
    assert shown["immediate/EM"].nunique() == 3
    own = [row for row in found if row["edited_at"] == row["measured_at"]]
    losses = pd.read_csv(run / "csv" / "loss.csv")
    assert set(losses["line"]) == sample_of([row["case_id"] for row in own], 3, seed=0)
    case_id = int(losses["line"][0])
    (its_own,) = [row["edit"]["loss"] for row in own if row["case_id"] == case_id]
    assert losses["loss"][losses["line"] == case_id].tolist() == pytest.approx(its_own)

    tracker = CsvTracker().run(folder=run / "again", name="n", group="g", job_type="lifelong", config={})
    with tracker as tracked:  # what a run would report that was killed after its first step
        live = LiveSequence(tracked=tracked, sample=(), earlier=[row for row in found if row["measured_at"] == 4])
        live([row for row in found if row["measured_at"] == 8], edits=8, is_checkpoint=True)
    (point,) = metrics(run / "again").to_dict("records")
    assert point == {name: value for name, value in shown.iloc[1].to_dict().items() if name in point}


def test_rows_say_when(romexp: Command, many: list[str], tmp_path: Path) -> None:
    settings = ["task.edits=10", "task.step=4", "task.checkpoints=[4,8]", "task.batch_size=3", "save_deltas=true"]
    reported = [each for each in many if each != "tracker=none"]
    done = romexp(*reported, *settings, "task.tracked_cases=3", "tracker=csv", "output_dir=run")
    assert done.status == 0, done.err
    found = rows(tmp_path / "run")
    check_points(tmp_path / "run", found)
    times = [(row["edited_at"], row["measured_at"]) for row in found]
    assert times == [(4, 4)] * 4 + [(8, 8)] * 4 + [(4, 8)] * 4 + [(10, 10)] * 2 + [(4, 10)] * 4 + [(8, 10)] * 4
    order = [row["case_id"] for row in found if row["edited_at"] == row["measured_at"]]
    assert len(set(order)) == 10
    assert order != sorted(order)
    by_case = {(row["case_id"], row["measured_at"]): row for row in found}
    first = order[0]
    assert by_case[first, 4]["pre"] == by_case[first, 10]["pre"]  # from the original model
    assert by_case[first, 4]["post"] != by_case[first, 10]["post"]
    assert by_case[first, 4]["edit"]["layers"] == [1, 2]
    said = summary_of(tmp_path / "run")
    assert (said["n_cases"], said["n_edits"]) == (10, 10)
    assert said["immediate"] != said["final"]
    assert [part["measured_at"] for part in said["retention"]] == [8, 10]
    deltas = sorted(int(file.stem) for file in (tmp_path / "run" / "deltas").iterdir())
    assert deltas == [4, 8, 10]
    state, _ = SequenceState.load(tmp_path / "run" / "state.safetensors")
    assert WeightDelta.load(tmp_path / "run" / "deltas" / "10.safetensors").digest == state.delta.digest
    assert "10 edits by MEMIT, 4 at a time" in done.out
    assert "right after" in done.out
    assert "at the end" in done.out


def test_the_order_is_seeded_and_a_shorter_run_is_a_beginning(romexp: Command, many: list[str], tmp_path: Path) -> None:
    for name, more in {"one": [], "other": ["seed=1"], "file": ["task.order=file"], "long": ["task.edits=4"]}.items():
        assert romexp(*many, "task.edits=2", "task.step=2", *more, f"output_dir={name}").status == 0
    ids = {name: [row["case_id"] for row in rows(tmp_path / name)] for name in ("one", "other", "file", "long")}
    assert ids["file"] == [0, 1]
    assert ids["one"] == ids["long"][:2] != ids["other"]


@pytest.mark.parametrize("editor", ["memit", pytest.param("rome", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_bit_for_bit(
    romexp: Command, many: list[str], tmp_path: Path, editor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped where it hurts most: the work is written, but not that it is done."""
    own = {"memit": many, "rome": [*(e for e in many if not e.startswith("editor.l") and "mom2" not in e), *ROME]}
    arguments = [*own[editor], "task.edits=5", "task.step=2", "task.checkpoints=[2,4]", "task.batch_size=2"]
    assert romexp(*arguments, "output_dir=whole").status == 0
    whole = rows(tmp_path / "whole")
    assert len(whole) == 5 + 2 + 4

    def stop_after(units: int) -> Callable[[Path, str], None]:
        left = [units]

        def write(path: Path, text: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise ConfigError("stopped")
            write_text(path, text)

        return write

    for units in (1, 3, 6, 12):  # of thirteen: the watch, an edit and its measurement, …
        with monkeypatch.context() as patched:
            patched.setattr(progress, "write_text", stop_after(units))
            assert romexp(*arguments, f"output_dir=cut{units}").status == 2
        assert romexp(*arguments, f"output_dir=cut{units}").status == 0
        assert rows(tmp_path / f"cut{units}") == whole
        files = [tmp_path / name / "state.safetensors" for name in ("whole", f"cut{units}")]
        states = [SequenceState.load(file)[0].delta.digest for file in files]
        assert states[0] == states[1]
        assert summary_of(tmp_path / f"cut{units}") == summary_of(tmp_path / "whole")
        curves = [(tmp_path / name / "curves.jsonl").read_bytes() for name in ("whole", f"cut{units}")]
        assert curves[0] == curves[1]


@pytest.mark.slow
def test_a_kill_in_the_middle(romexp: Command, many: list[str], tmp_path: Path) -> None:
    """A process that is really killed, between steps or within one."""
    arguments = [*many, "task.edits=10", "task.step=1", "task.batch_size=1", f"cache_dir={tmp_path / 'cache'}"]
    process = start(*arguments, "output_dir=killed", cwd=tmp_path)
    file = tmp_path / "killed" / "cases.jsonl"
    try:
        deadline = time.monotonic() + 300
        while not file.exists() or file.read_bytes().count(b"\n") < 3:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    survived = file.read_bytes().count(b"\n")
    assert survived < 19, "the kill came too late to show anything"
    assert romexp(*arguments, "output_dir=killed").status == 0
    assert romexp(*arguments[:-1], f"cache_dir={tmp_path / 'other'}", "output_dir=whole").status == 0
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "killed")) == 19
    digests = [SequenceState.load(tmp_path / n / "state.safetensors")[0].delta.digest for n in ("killed", "whole")]
    assert digests[0] == digests[1]


def test_contradictions_are_left_out_and_named(romexp: Command, many: list[str], tmp_path: Path) -> None:
    records = [record(i) for i in range(3)]
    again = record(3)
    again["requested_rewrite"]["subject"] = records[0]["requested_rewrite"]["subject"]
    again["requested_rewrite"]["target_new"] = {"str": "phone", "id": "Q9"}
    (tmp_path / "records.json").write_text(json.dumps([*records, again]))
    arguments = [*many, f"dataset.path={tmp_path / 'records.json'}", "task.step=3"]
    done = romexp(*arguments, "output_dir=run")
    assert done.status == 0, done.err
    named = json.loads((tmp_path / "run" / "manifest.json").read_text())["contradictions"]
    assert len(named) == 1
    assert named[0]["case_id"] in (0, 3)
    assert "contradictions: 1" in done.out
    kept = romexp(*arguments, "task.contradictions=keep", "task.step=4", "output_dir=kept")
    assert kept.status == 0
    assert len(rows(tmp_path / "kept")) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task.edits=4", "task.step=5"], "task.step: a step of 5 cases is larger than task.edits=4"),
        (["task.step=13"], "task.step: a step of 13 cases is larger than the 12 there are"),
        (["task.edits=13"], "task.edits: 13 are wanted, but the data set has 12 cases"),
        (["task.edits=0"], "task.edits: expected a number of at least 1"),
        (["task.edits=4", "task.step=2", "task.checkpoints=[3]"], "task.checkpoints: 3 is no multiple of task.step=2"),
        (["editor.layers=[2,1]"], "editor.layers: expected layers in ascending order"),
        (["editor.layers=[1,3]", "task.step=1"], "no second moment of layer 3; it holds those of [1, 2]"),
        (["task.order=best"], "task.order"),
    ],
)
def test_bad_input_is_one_line(romexp: Command, many: list[str], arguments: list[str], message: str) -> None:
    done = romexp(*many, *arguments)
    assert done.status == 2
    assert done.err.count("\n") == 1, done.err
    assert message in done.err
