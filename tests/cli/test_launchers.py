"""Sweeps beyond one process, for real: joblib, submitit's local executor, Ray; killed workers and killed commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_runs import ROOT, start

from romexp.cli.job_record import JobRecord, read_records

JOBS = ["dataset.limit=2", "editor.layer=0,1,2,3", "-m"]
SLOW_JOBS = ["dataset.limit=8", "task.batch_size=1", "editor.v_num_grad_steps=150", "editor.layer=0,1,2,3", "-m"]
HERE = {
    "workers": pytest.mark.skipif(find_spec("joblib") is None, reason="joblib is not installed"),
    "processes": pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed"),
    "ray_cluster": pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"),
}
LAUNCHERS = [
    pytest.param("workers", marks=HERE["workers"]),
    pytest.param("processes", marks=[HERE["processes"], pytest.mark.slow]),
    pytest.param("ray_cluster", marks=[HERE["ray_cluster"], pytest.mark.slow]),
]


@pytest.fixture(autouse=True)
def _ray_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def sweep(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def newest(root: Path) -> Path | None:
    return max(root.glob("outputs/sweeps/*"), default=None)


def records(root: Path) -> dict[int, JobRecord]:
    folder = newest(root)
    return read_records(folder) if folder else {}


def finished_cases(root: Path) -> dict[str, list[str]]:
    """Whole lines of `cases.jsonl`, by folder."""
    files = root.glob("outputs/edit/*/*/*/*/cases.jsonl")
    return {file.parent.name: file.read_text().splitlines(keepends=True) for file in files}


def until(condition: Callable[[], bool], *, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_runs_a_sweep_to_its_end(launcher: str, tiny: list[str], tmp_path: Path) -> None:
    """Four jobs of which one fails: the others are done, one table and one list of failures at the end."""
    given = [*tiny, f"hydra/launcher={launcher}", "dataset.limit=2", "editor.layer=0,1,77,3", "-m"]
    status, out, err = sweep(*given, cwd=tmp_path)
    assert status == 2, err
    assert "3 jobs, 2 cases each" in out
    assert "romexp: 1 of 4 jobs failed" in err
    assert "romexp:   editor.layer=77: editor.layer: 77 is outside 0…3 of 'tiny'" in err
    assert {n: r.status for n, r in records(tmp_path).items()} == {0: "done", 1: "done", 2: "failed", 3: "done"}
    assert os.getpid() not in {record.process.pid for record in records(tmp_path).values()}
    assert sorted(len(lines) for lines in finished_cases(tmp_path).values()) == [2, 2, 2]


@pytest.mark.slow
@HERE["workers"]
def test_a_launcher_finds_what_one_process_finds(tiny: list[str], tmp_path: Path) -> None:
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    for folder, given in ((alone, []), (spread, ["hydra/launcher=workers"])):
        folder.mkdir()
        status, _, err = sweep(*tiny, *given, "dataset.limit=2", "editor.layer=0,1", "-m", cwd=folder)
        assert status == 0, err
    for name, lines in finished_cases(alone).items():
        for ours, theirs in zip(lines, finished_cases(spread)[name], strict=True):
            assert json.loads(ours) | {"time": 0} == json.loads(theirs) | {"time": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("workers", marks=HERE["workers"]),
        pytest.param("processes", marks=HERE["processes"]),
        pytest.param("ray_cluster", marks=HERE["ray_cluster"]),
    ],
)
def test_a_killed_worker_loses_no_finished_case(launcher: str, tiny: list[str], tmp_path: Path) -> None:
    given = [*tiny, f"hydra/launcher={launcher}", *SLOW_JOBS]
    process = start(*given, cwd=tmp_path)
    until(lambda: any(len(lines) > 1 for lines in finished_cases(tmp_path).values()))
    victim = next(record for record in records(tmp_path).values() if record.status == "running")
    os.kill(victim.process.pid, signal.SIGKILL)
    before = finished_cases(tmp_path)
    out, err = process.communicate(timeout=600)
    if launcher == "ray_cluster":  # starts it again by itself
        assert process.returncode == 0, err
    else:
        assert process.returncode == 1, err
        assert "its process ended without a word" in err
    if launcher == "processes":  # the others go on
        assert f"romexp: 1 of {len(records(tmp_path))} jobs failed" in err
    assert "Traceback" not in err
    status, out, err = sweep(*given, cwd=tmp_path)
    assert status == 0, err
    assert "4 jobs, 8 cases each" in out
    after = finished_cases(tmp_path)
    for name, lines in before.items():
        kept = [line for line in lines if line.endswith("\n")]
        assert after[name][: len(kept)] == kept, "finished cases are not done again"


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [pytest.param("workers", marks=HERE["workers"]), pytest.param("processes", marks=HERE["processes"])],
)
def test_workers_end_with_a_killed_command(launcher: str, tiny: list[str], tmp_path: Path) -> None:
    process = start(*tiny, f"hydra/launcher={launcher}", *SLOW_JOBS, cwd=tmp_path)
    until(lambda: any(finished_cases(tmp_path).values()))
    workers = [record.process for record in records(tmp_path).values()]
    assert any(worker.is_alive for worker in workers)
    process.kill()
    process.communicate()
    until(lambda: not any(worker.is_alive for worker in workers), seconds=15)
    assert any(record.status == "running" for record in records(tmp_path).values()), "they were still at work"


@pytest.mark.parametrize(
    ("launcher", "extra"),
    [("workers", "launchers"), ("slurm", "launchers"), ("joblib", "launchers"), ("ray_cluster", "ray"), ("ray", "ray")],
)
def test_a_launcher_that_is_not_installed_says_what_to_install(launcher: str, extra: str, tmp_path: Path) -> None:
    without = "import sys; sys.modules['hydra_plugins'] = None; from romexp.__main__ import main; main()"
    command = [sys.executable, "-c", without, f"hydra/launcher={launcher}", "seed=0,1", "-m"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr.splitlines(keepends=True)[-1]
        == f"romexp: error: hydra/launcher: a package is not installed: pip install 'romexp[{extra}]'\n"
    )


@HERE["processes"]
@pytest.mark.skipif("SLURM_JOB_ID" in os.environ, reason="this is a Slurm cluster")
def test_without_a_scheduler_slurm_says_so(tmp_path: Path) -> None:
    status, _, err = sweep("hydra/launcher=slurm", "seed=0,1", "-m", cwd=tmp_path)
    assert status == 2
    assert "romexp: error: hydra/launcher: no job could be started: RuntimeError: Could not detect" in err
