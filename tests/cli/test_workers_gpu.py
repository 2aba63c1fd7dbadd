"""Each holder of the pool has a GPU of its own; who comes late waits; who is killed gives it back."""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from romexp.cli.workers import own_gpu, visible_gpus

SPAWN = mp.get_context("spawn")


def hold(folder: Path, pipe: Connection) -> None:
    with own_gpu(["0", "1"], folder=folder) as device:
        pipe.send(device)
        pipe.recv()


@pytest.fixture
def holder(tmp_path: Path) -> Callable[[], tuple[mp.process.BaseProcess, Connection]]:
    def start() -> tuple[mp.process.BaseProcess, Connection]:
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=hold, args=(tmp_path, theirs), daemon=True)
        process.start()
        return process, ours

    return start


def test_two_processes_have_two_gpus_and_a_third_waits(
    holder: Callable[[], tuple[mp.process.BaseProcess, Connection]],
) -> None:
    (first, a), (_, b) = holder(), holder()
    devices = {a.recv(), b.recv()}
    assert devices == {"cuda:0", "cuda:1"}
    _, c = holder()
    assert not c.poll(3.0), "both are taken"
    first.kill()
    assert c.poll(10.0)
    assert c.recv() in devices
    b.send("end"), c.send("end")


def test_one_process_may_ask_again(tmp_path: Path) -> None:
    for _ in range(2):
        with own_gpu(["0"], folder=tmp_path) as device:
            assert device == "cuda:0"


def test_a_gpu_is_given_back_when_the_job_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), own_gpu(["0"], folder=tmp_path):
        raise ValueError("x")
    start = time.monotonic()
    with own_gpu(["0"], folder=tmp_path):
        assert time.monotonic() - start < 1


def test_gpus_are_known_by_the_machines_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a")
    assert visible_gpus(2) == ["3", "GPU-5a"]
    assert visible_gpus(1) == ["3"]


@pytest.mark.parametrize(
    ("launcher", "given", "in_worker", "expected"),
    [
        ("x.JoblibLauncher", "auto", True, "cuda:"),
        ("x.LocalLauncher", "auto", True, "cuda:"),
        ("x.SlurmLauncher", "auto", True, "auto"),
        ("x.JoblibLauncher", "cuda:7", True, "cuda:7"),
        ("x.JoblibLauncher", "auto", False, "auto"),
    ],
)
def test_workers_of_one_machine_are_told_their_gpu(
    launcher: str, given: str, in_worker: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two GPUs that are not there. Slurm and Ray hand them out themselves."""
    import torch
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from romexp.cli import workers as gpu_pool
    from romexp.cli.run_job import JobFunction
    from romexp.cli.workers import Process

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(gpu_pool, "lock_folder", lambda: tmp_path)
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"launcher": {"_target_": launcher}}))
    here = Process.this()
    command = Process(host=here.host, pid=1, born="1") if in_worker else here
    cfg = OmegaConf.create({"model": {"device": given, "device_map": None}})
    job = JobFunction(command=command)
    with job._own_gpu(cfg):
        first = str(cfg.model.device)
        assert first.startswith(expected)
        cfg.model.device = given
        with job._own_gpu(cfg):
            assert (str(cfg.model.device) != first) == (expected == "cuda:")
