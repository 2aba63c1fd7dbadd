"""A password or token in a URL stands in no message, no log, no manifest and no configuration file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, serve
from tiny_runs import Command, record

SECRET = "geheim"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve(json.dumps([record(i) for i in range(3)]).encode()) as state:
        yield state


def remote(server: FileServer) -> list[str]:
    """Arguments by which the data set is downloaded from an address with a user, a password and a token."""
    url = server.url.replace("://", f"://me:{SECRET}@") + f"?part=2&token={SECRET}2&X-Amz-Signature={SECRET}3"
    return [
        "dataset.path=null",
        "+dataset.remote._target_=romexp.data.download.RemoteFile",
        f"+dataset.remote.url='{url}'",
        "cache_dir=cache",
    ]


def assert_nowhere(folder: Path, *texts: str) -> None:
    for text in texts:
        assert SECRET not in text
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file
        assert SECRET not in str(file)


def without(tiny: list[str], *keys: str) -> list[str]:
    return [argument for argument in tiny if argument.partition("=")[0] not in keys]


def test_a_run(romexp: Command, tiny: list[str], server: FileServer, tmp_path: Path) -> None:
    arguments = [*without(tiny, "dataset.path", "cache_dir"), *remote(server)]
    done = romexp(*arguments, "output_dir=run")
    assert done.status == 0, done.err
    assert server.asked[0]["Authorization"]  # the control: the password was used
    assert "downloading" in done.err
    assert_nowhere(tmp_path, done.out, done.err)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert any("dataset.remote.url" in argument for argument in manifest["overrides"])
    assert "part=2&token=***" in (tmp_path / "run" / "config.yaml").read_text()
    again = romexp(*arguments, "output_dir=run")  # with the same address it is the same run
    assert again.status == 0, again.err


def test_what_w_and_b_is_given(
    romexp: Command, tiny: list[str], server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []

    def init(**arguments: object) -> None:
        sent.extend([*sys.argv, arguments])
        raise ValueError("no run today")

    monkeypatch.setattr("wandb.init", init)
    given = without(tiny, "dataset.path", "cache_dir", "tracker")
    done = romexp(*given, *remote(server), "output_dir=run", "tracker=wandb", "tracker.mode=offline")
    assert (done.status, "no run today" in done.err) == (2, True)
    assert "dataset.remote.url" in repr(sent)
    assert SECRET not in repr(sent)
    assert SECRET in repr(sys.argv)  # only W&B sees other arguments


def test_a_sweep_with_a_job_that_fails(romexp: Command, tiny: list[str], server: FileServer, tmp_path: Path) -> None:
    server.status = 403
    given = without(tiny, "dataset.path", "cache_dir")
    done = romexp("-m", *given, *remote(server), "seed=0", "outputs=out", "debug=true")
    assert done.status == 2
    assert "403" in done.err
    assert "Traceback" in done.err
    assert_nowhere(tmp_path, done.out, done.err)
    assert list(tmp_path.rglob("multirun.yaml"))


def test_a_fault_of_the_program(
    romexp: Command, tiny: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"https://me:{SECRET}@example.org/a?token={SECRET}")

    monkeypatch.setattr("romexp.data.dataset.RecordFile.load", fail)
    done = romexp(*tiny, "outputs=out")
    assert done.status == 1
    assert "RuntimeError: https://example.org/a?token=***" in done.err
    assert SECRET not in done.err
