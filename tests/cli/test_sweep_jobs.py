"""A sweep in one process: what is loaded, what fails, what is printed, what a second run does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import Command, rows

from romexp.cli.job_record import JobRecord, read_records
from romexp.cli.sweep import Sweep, differing
from romexp.cli.sweep_table import failure_lines
from romexp.cli.workers import Process
from romexp.lm.model import LanguageModel, PretrainedModel


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[LanguageModel]:
    """Every model that is loaded during the test, in order."""
    models: list[LanguageModel] = []
    load = PretrainedModel.load

    def counting(self: PretrainedModel) -> LanguageModel:
        models.append(load(self))
        return models[-1]

    monkeypatch.setattr(PretrainedModel, "load", counting)
    return models


def sweep_folder(root: Path) -> Path:
    """That of the newest sweep."""
    return sorted((root / "outputs" / "sweeps").iterdir())[-1]


def test_a_sweep_loads_its_model_once_and_leaves_it_as_it_was(
    romexp: Command, tiny: list[str], loaded: list[LanguageModel]
) -> None:
    done = romexp(*tiny, "dataset.limit=2", "editor.layer=0,1,2", "-m")
    assert (done.status, len(loaded)) == (0, 1)
    fresh = PretrainedModel(path=loaded[0].model.config._name_or_path, device="cpu").load()
    for name, weight in fresh.model.state_dict().items():
        assert torch.equal(loaded[0].model.state_dict()[name], weight), name


def test_another_type_of_weights_is_another_model(
    romexp: Command, tiny: list[str], loaded: list[LanguageModel]
) -> None:
    assert romexp(*tiny, "dataset.limit=1", "model.dtype=float32,float64", "seed=0,1", "-m").status == 0
    assert [lm.dtype for lm in loaded] == [torch.float32, torch.float64]


def test_jobs_of_a_sweep_find_what_single_runs_find(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    """The model that an earlier job used is as good as a new one."""
    romexp(*tiny, "dataset.limit=3", "editor.layer=0,1", "outputs=swept", "-m")
    romexp(*tiny, "dataset.limit=3", "editor.layer=1", "output_dir=single")
    (swept,) = [folder for folder in tmp_path.glob("swept/edit/*/*/*/*") if rows(folder)[0]["edit"]["layer"] == 1]
    assert rows(swept) == rows(tmp_path / "single")


def test_the_end_of_a_sweep_shows_results_and_failures(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    done = romexp(*tiny, "dataset.limit=2", "editor.layer=0,77,2", "-m")
    assert done.status == 2
    lines = [line.split("│")[1:3] for line in done.out.splitlines() if line.startswith("│")]
    assert [line[0].strip() for line in lines] == ["unedited", "editor.layer=0", "editor.layer=2"]
    assert "2 jobs, 2 cases each" in done.out
    summaries = {
        json.loads(f.read_text())["post"]["S"]["mean"] for f in tmp_path.glob("outputs/edit/*/*/*/*/summary.json")
    }
    assert {f"{s:.1f}" for s in summaries} == {line[1].strip() for line in lines[1:]}
    assert f"results: {tmp_path}/outputs/edit/tiny/counterfact/rome\n" in done.out
    end = done.err.splitlines()[-2:]
    assert end[0].startswith("romexp: 1 of 3 jobs failed")
    assert end[1] == "romexp:   editor.layer=77: editor.layer: 77 is outside 0…3 of 'tiny'"


def test_run_again_it_does_only_what_is_missing(
    romexp: Command, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from romexp.edit_batch import EditBatch

    batches: list[int] = []
    call = EditBatch.__call__

    def counting(self: EditBatch, cases: Any) -> Any:
        batches.append(len(cases))
        return call(self, cases)

    monkeypatch.setattr(EditBatch, "__call__", counting)
    monkeypatch.setattr("romexp.tasks.edit_results.summarize_frame", _broken_once(at=2))
    first = romexp(*tiny, "dataset.limit=2", "editor.layer=0,1,2", "-m")
    assert (first.status, batches) == (1, [2, 2, 2])
    assert "editor.layer=1: ZeroDivisionError: broken" in first.err.splitlines()[-1]
    assert "Traceback" in read_records(sweep_folder(tmp_path))[1].traceback
    again = romexp(*tiny, "dataset.limit=2", "editor.layer=0,1,2,3", "-m")
    assert (again.status, batches) == (0, [2, 2, 2, 2]), "only layer 3 had cases left"
    assert "4 jobs, 2 cases each" in again.out
    assert "failed" not in again.err


def _broken_once(at: int) -> Any:
    from romexp.analysis.summary import summarize_frame

    calls: list[int] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise ZeroDivisionError("broken")
        return summarize_frame(*args, **kwargs)

    return call


def test_an_interruption_ends_the_sweep_and_says_what_was_not_run(
    romexp: Command, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("romexp.tasks.edit_results.summarize_frame", interrupted)
    done = romexp(*tiny, "dataset.limit=1", "editor.layer=0,1,2", "-m")
    assert done.status == 130
    assert done.err.splitlines()[-2:] == [
        "romexp: 1 of 3 jobs failed, 2 of 3 not run; the same command again does only what is missing",
        "romexp:   editor.layer=0: interrupted",
    ]


def test_a_mistake_in_any_job_is_seen_before_the_first_is_run(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    done = romexp(*tiny, "editor=rome,rom", "-m")
    assert (done.status, done.err.count("romexp:")) == (2, 1)
    assert "rom" in done.err
    assert not list(tmp_path.glob("outputs/edit"))


def test_other_tasks_have_a_table_of_their_numbers(romexp: Command, tiny: list[str], tiny_dir: Path) -> None:
    given = [a for a in tiny if a.startswith(("model", "tracker", "cache"))]
    facts = tiny_dir.parent / "facts.json"
    facts.write_text(json.dumps([{"known_id": 0, "subject": "Bob", "attribute": "violin", "prompt": "Bob plays the"}]))
    done = romexp(*given, "task=trace", "dataset=known", f"dataset.path={facts}", "tracer.samples=2,3", "-m")
    assert done.status == 0, done.err
    assert re.search(r"tracer.samples=2 +│", done.out)


def test_a_single_run_leaves_no_record_of_a_sweep(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    romexp(*tiny, "dataset.limit=1", "seed=0,1", "-m")
    before = sorted(tmp_path.glob("outputs/sweeps/*"))
    done = romexp(*tiny, "dataset.limit=1")
    assert done.status == 0
    assert "jobs" not in done.out
    assert sorted(tmp_path.glob("outputs/sweeps/*")) == before


def test_a_killed_job_is_told_from_one_that_was_not_run(tmp_path: Path) -> None:
    sweep = Sweep(folder=tmp_path, overrides=(("seed=0", "x=1"), ("seed=1", "x=1"), ("seed=2", "x=1")))
    record = JobRecord.begun(number=0, overrides=("seed=0", "x=1"))
    ended = record.ended(exit_status=0, error="", traceback="", results=str(tmp_path), seconds=1.0)
    ended.write(tmp_path)
    gone = Process(host=record.process.host, pid=2**22 + 1, born="1")
    JobRecord(number=1, overrides=("seed=1", "x=1"), process=gone, started="").write(tmp_path)
    assert [job.exit_status for job in sweep.jobs()] == [0, 1, 1]
    head, killed = failure_lines(sweep.jobs())
    assert head.startswith("1 of 3 jobs failed, 1 of 3 not run; the same command again")
    assert killed == "  seed=1: its process ended without a word (killed, or out of memory)"
    assert read_records(tmp_path)[0].status == "done"


def test_a_manifest_holds_the_command_of_its_job_alone(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    """Also for a sweep file of one's own, in a folder of its own."""
    folder = tmp_path / "my sweeps"
    folder.mkdir()
    params = {"sweeper": {"params": {"editor.layer": "0,2"}}, "mode": "MULTIRUN"}
    (folder / "mine.yaml").write_text(json.dumps({"defaults": ["config", "_self_"], "seed": 3, "hydra": params}))
    given = [*(each for each in tiny if not each.startswith("editor.layer")), "dataset.limit=1"]
    assert romexp("-cd", str(folder), "-cn", "mine", *given).status == 0
    manifests = [json.loads(f.read_text()) for f in tmp_path.glob("outputs/edit/*/*/*/*/manifest.json")]
    assert sorted(m["identity"]["editor"]["layer"] for m in manifests) == [0, 2]
    done = romexp(*manifests[0]["overrides"])
    assert (done.status, "was finished before" in done.err) == (0, True), done.err
    assert len(list(tmp_path.glob("outputs/edit/*/*/*/*"))) == 2
    single = romexp("-cn", "layers_minifact", *tiny, "dataset.limit=1", "hydra.mode=RUN", "output_dir=one")
    assert single.status == 0, single.err
    assert json.loads(Path("one/manifest.json").read_text())["overrides"][:2] == ["-cn", "layers_minifact"]


def test_jobs_are_named_by_what_differs() -> None:
    assert differing([["a=1", "b=2"], ["a=1", "b=3"]]) == ["b=2", "b=3"]
    assert differing([["a=1", "b=2"]]) == ["a=1 b=2"]
    assert differing([]) == []
