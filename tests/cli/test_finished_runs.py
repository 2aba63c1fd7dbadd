"""A finished run is recognized without torch and without its model, and only as long as nothing has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import ROOT, Command

from romexp.files import file_sha256


@pytest.fixture
def given(tiny: list[str], tiny_dir: Path, records_file: Path, tmp_path: Path) -> list[str]:
    """Arguments of a run whose model, records and cache are its own."""
    shutil.copytree(tiny_dir, tmp_path / "model")
    shutil.copy(records_file, tmp_path / "records.json")
    own = {"model.path": "model", "dataset.path": "records.json", "cache_dir": "cache", "output_dir": "run"}
    kept = [argument for argument in tiny if argument.partition("=")[0] not in own]
    return [*kept, *(f"{name}={tmp_path / path}" for name, path in own.items()), "dataset.limit=2"]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it: from then on whoever loads a model fails."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model is loaded")

    return lambda: monkeypatch.setattr("romexp.cli.kept_between_jobs.LoadedModels.load", refuse)


def test_it_is_recognized_without_its_model(
    romexp: Command, given: list[str], no_model: Callable[[], None], tmp_path: Path
) -> None:
    first = romexp(*given)
    files = {file: file_sha256(file) for file in (tmp_path / "run").rglob("*") if file.is_file()}
    no_model()
    again = romexp(*given)
    assert (again.status, again.out) == (0, first.out)
    assert "this run was finished before; delete its folder to repeat it" in again.err
    assert files == {file: file_sha256(file) for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert "a model is loaded" in romexp(*given, "seed=1").err, "the control: another run is not"


def test_torch_is_not_imported(romexp: Command, given: list[str], tmp_path: Path) -> None:
    assert romexp(*given).status == 0
    script = (
        "import sys; from romexp.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, [name for name in ('torch', 'pandas') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", script, *given]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def _touch_weights(folder: Path) -> None:
    file = folder / "model" / "model.safetensors"
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a row is gone": lambda folder: (folder / "run" / "cases.jsonl").write_text(""),
    "the summary is gone": lambda folder: (folder / "run" / "summary.json").unlink(),
    "it is not done": lambda folder: (folder / "run" / "status").write_text("failed\n"),
    "the folder is gone": lambda folder: shutil.rmtree(folder / "run"),
    "other records": lambda folder: (folder / "records.json").write_text((folder / "records.json").read_text() + " "),
    "one bit of the weights, with the old time": _touch_weights,
    "a new file of the model": lambda folder: (folder / "model" / "more.json").write_text("{}"),
    "the stored outcome is damaged": lambda folder: next((folder / "cache" / "finished").iterdir()).write_text('{"a'),
    "it holds something else": lambda folder: next((folder / "cache" / "finished").iterdir()).write_text("[3]"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_has_changed_opens_it_in_full(
    romexp: Command, given: list[str], no_model: Callable[[], None], tmp_path: Path, change: str
) -> None:
    assert romexp(*given).status == 0
    CHANGES[change](tmp_path)
    no_model()
    assert "a model is loaded" in romexp(*given).err


def test_a_model_of_the_hub_may_be_newer_there(
    romexp: Command, given: list[str], no_model: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`hub-model` stands for an id of the hub, which is found in a folder the first time."""
    shutil.copytree(tmp_path / "model", tmp_path / "hub-model")
    assert romexp(*given, "model.path=hub-model").status == 0
    shutil.rmtree(tmp_path / "hub-model")
    no_model()
    assert "a model is loaded" in romexp(*given, "model.path=hub-model").err


def test_jobs_of_a_sweep_are_recognized_too(
    romexp: Command, given: list[str], no_model: Callable[[], None], tmp_path: Path
) -> None:
    arguments = [argument for argument in given if not argument.startswith("output_dir")]
    first = romexp(*arguments, "editor.layer=1,2", "-m")
    no_model()
    again = romexp(*arguments, "editor.layer=1,2", "-m")
    assert (first.status, again.status) == (0, 0), again.err
    assert again.out.partition("sweep:")[0] == first.out.partition("sweep:")[0]


def test_a_trace_is_recognized_with_its_table(
    romexp: Command, given: list[str], no_model: Callable[[], None], tmp_path: Path
) -> None:
    model = [argument for argument in given if argument.startswith(("model", "cache_dir", "tracker", "output_dir"))]
    trace = ["task=trace", "prompt=Bob plays the", "subject=Bob", "tracer.noise=0.5", *model]
    first = romexp(*trace)
    assert first.status == 0, first.err
    no_model()
    again = romexp(*trace)
    assert (again.status, again.out) == (0, first.out)
    (stored,) = (tmp_path / "cache" / "finished").iterdir()
    assert json.loads(stored.read_text())["tables"]
