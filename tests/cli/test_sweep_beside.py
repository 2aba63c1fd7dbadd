"""A sweep beside others: another process at the same runs, Hydra's own folders, W&B's variables for one run."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tiny_runs import Command, rows, start

from romexp.results import folder
from romexp.results.folder import RunFolder


@pytest.mark.slow
def test_two_identical_sweeps_at_once_are_both_done(tiny: list[str], tmp_path: Path) -> None:
    given = [*tiny, "dataset.limit=3", "task.batch_size=1", "editor.layer=0,1", "-m"]
    both = [start(*given, cwd=tmp_path) for _ in range(2)]
    ends = [(process.communicate(timeout=600), process.returncode) for process in both]
    for (out, err), status in ends:
        assert status == 0, err
        assert "2 jobs, 3 cases each" in out
    assert [len(rows(run)) for run in tmp_path.glob("outputs/edit/*/*/*/*")] == [3, 3]


def test_a_job_of_a_sweep_waits_for_another_process_and_takes_its_results(
    romexp: Command, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*tiny, "dataset.limit=1", "output_dir=run"]
    assert romexp(*arguments).status == 0
    before = (tmp_path / "run" / "cases.jsonl").stat().st_mtime_ns
    held, waited_for = threading.Event(), threading.Event()

    def other_process() -> None:
        with RunFolder(tmp_path / "run").locked():
            held.set()
            waited_for.wait(60)

    def says(message: str, *arguments: object) -> None:
        said.append(message % arguments)
        waited_for.set()

    said: list[str] = []
    monkeypatch.setattr(folder.log, "info", says)
    thread = threading.Thread(target=other_process)
    thread.start()
    try:
        assert held.wait(60)
        done = romexp(*arguments, "seed=0", "-m")
    finally:
        waited_for.set()
        thread.join()
    assert done.status == 0, done.err
    assert said == ["another romexp process is writing into run: waiting for its results"]
    assert "finished before" in done.err
    assert (tmp_path / "run" / "cases.jsonl").stat().st_mtime_ns == before


def test_relative_paths_mean_the_folder_of_the_command(
    romexp: Command, tiny: list[str], records_file: Path, tmp_path: Path
) -> None:
    """Also where Hydra changes the folder for each job."""
    (tmp_path / "records.json").write_text(records_file.read_text())
    given = [*tiny, "dataset.path=./records.json", "dataset.limit=2", "hydra.job.chdir=true"]
    done = romexp(*given, "editor.layer=0,1", "-m")
    assert done.status == 0, done.err
    assert "2 jobs, 2 cases each" in done.out
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["edit", "sweeps"]
    assert len(list(tmp_path.glob("outputs/edit/*/*/*/*/summary.json"))) == 2
    failing = romexp(*given, "editor.layer=77,78", "-m")
    assert (failing.status, "2 of 2 jobs failed" in failing.err) == (2, True)
    single = romexp(*given, "editor.layer=2", "hydra.run.dir=elsewhere")
    assert single.status == 0, single.err
    assert len(list(tmp_path.glob("outputs/edit/*/*/*/*/summary.json"))) == 3


def test_a_sweep_whose_records_are_lost_does_not_end_well(
    romexp: Command, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("romexp.cli.job_record.JobRecord.write", lambda self, folder: None)
    done = romexp(*tiny, "dataset.limit=1", "seed=0,1", "-m")
    assert (done.status, "no job has left a record in outputs/sweeps" in done.err) == (1, True)


def test_jobs_of_a_sweep_have_runs_of_their_own_on_wandb(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    given = [each for each in tiny if each != "tracker=none"]
    process = start(*given, "tracker.mode=offline", "dataset.limit=1", "seed=0,1", "-m", cwd=tmp_path)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert err.count("romexp: WANDB_RUN_ID: ignored in a sweep") == 1
    ids = {path.name.rpartition("-")[2] for path in tmp_path.rglob("offline-run-*")}
    assert (len(ids), "abc123" in ids) == (2, False)
