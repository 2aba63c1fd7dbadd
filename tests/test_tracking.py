"""A Weights & Biases run, written offline and read back."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import ROOT, Command

from romexp.errors import ConfigError
from romexp.tasks.sync import is_busy, offline_runs
from romexp.tracking import NoTracker, Tracker, WandbTracker


def read(folder: Path) -> dict[str, Any]:
    """What `wandb leet inspect` finds in the one offline run below `folder`; `records` is its whole log."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(run)]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    summary = subprocess.run([*command, "--summary"], capture_output=True, text=True, check=True).stdout
    return {**json.loads(summary), "records": [json.loads(line) for line in log.splitlines()]}


CONFIG: dict[str, Any] = {"seed": 3, "editor": {"layer": 5}}
NAMES: dict[str, Any] = {"name": "n", "group": "g", "job_type": "edit", "config": {}}


def report(tracker: Tracker, folder: Path, *, fail: bool = False, config: Mapping[str, Any] = CONFIG) -> str:
    folder.mkdir()
    run = tracker.run(folder=folder, name="one", group="g", job_type="edit", config=config)
    with run as tracked:
        tracked.log({"loss": 2.0})
        tracked.table("cases", ["case_id", "post/ES"], [[1, 1.0], [2, 0.0]])
        tracked.summary({"post/ES": 50.0})
        if fail:
            raise ValueError("stop")
        return tracked.location


def test_an_offline_run_holds_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    location = report(WandbTracker(mode="offline", tags=("a",)), tmp_path / "x")
    assert capfd.readouterr() == ("", ""), "the console is ours"
    assert Path(location).name.startswith("offline-run-")
    assert Path(location).is_dir()
    run = read(tmp_path / "x")
    assert run["config"] == {"seed": 3, "editor": {"layer": 5}}
    assert (run["name"], run["project"], run["tags"], run["exit_code"]) == ("one", "romexp", ["a"], 0)
    assert run["summary"]["post/ES"] == 50.0
    assert run["summary"]["loss"] == 2.0
    assert (run["summary"]["cases"]["ncols"], run["summary"]["cases"]["nrows"]) == (2, 2)
    (header,) = [record["run"] for record in run["records"] if record["type"] == "run"]
    assert (header["run_group"], header["job_type"]) == ("g", "edit")


def test_names_become_tags_and_a_config_that_groups(tmp_path: Path) -> None:
    names = {"task": "edit", "model": "m" * 80, "dataset": "minifact", "editor": "rome"}
    report(WandbTracker(mode="offline", tags=("mine", "rome")), tmp_path / "x", config={**CONFIG, "names": names})
    run = read(tmp_path / "x")
    assert set(run["tags"]) == {"mine", "rome", "edit", "m" * 64, "minifact"}, "each once, none too long for W&B"
    assert len(run["tags"]) == 5
    assert run["config"]["names"] == names


def test_a_real_run_can_be_grouped_by_its_names(tiny: list[str], romexp: Command, tmp_path: Path) -> None:
    done = romexp(*tiny, "dataset.limit=2", "tracker=wandb", "tracker.mode=offline", "output_dir=run")
    assert done.status == 0, done.err
    run = read(tmp_path / "run")
    names = run["config"]["names"]
    assert (names["task"], names["dataset"], names["editor"]) == ("edit", "counterfact", "rome")
    assert set(run["tags"]) == set(names.values())
    assert run["config"]["layer"] == run["config"]["editor"]["layer"] == 1, "layer curves are drawn over this"
    assert {"post/ES", "post/NS", "pre/ES"} <= set(run["summary"])
    assert run["config"]["hash"] == json.loads((tmp_path / "run" / "manifest.json").read_text())["hash"]


def test_every_job_has_its_own_run_even_after_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="stop"):
        report(WandbTracker(mode="offline"), tmp_path / "a", fail=True)
    report(WandbTracker(mode="offline"), tmp_path / "b")
    failed, good = read(tmp_path / "a"), read(tmp_path / "b")
    assert (failed["exit_code"], good["exit_code"]) == (1, 0)
    assert failed["run_id"] != good["run_id"]
    assert capfd.readouterr() == ("", ""), "no traceback of W&B's own"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Neither variables nor files of W&B, in an empty folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return monkeypatch


KEY = {"WANDB_API_KEY": "0" * 40}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "offline"),
        (KEY, "online"),
        (KEY | {"WANDB_MODE": "offline"}, "offline"),
        (KEY | {"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "run"}, "online"),
        ({"WANDB_MODE": "online"}, "online"),
        (KEY | {"WANDB_MODE": "disabled"}, "disabled"),
        (KEY | {"WANDB_DISABLED": "true"}, "disabled"),
        (KEY | {"WANDB_DISABLED": "1", "WANDB_MODE": "online"}, "disabled"),
        (KEY | {"WANDB_DISABLED": "Yes"}, "disabled"),
        (KEY | {"WANDB_DISABLED": "false"}, "online"),
    ],
)
def test_auto_does_what_the_user_told_wandb(
    environment: dict[str, str], expected: str, alone: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        alone.setenv(name, value)
    assert WandbTracker().wanted_mode() == expected
    assert WandbTracker(mode="offline").wanted_mode() == "offline"


@pytest.mark.parametrize("name", ["WANDB_MODE", "WANDB_DISABLED"])
@pytest.mark.parametrize("word", ["shared", "ofline"])
def test_an_unknown_word_is_refused_before_anything_is_done(name: str, word: str, alone: pytest.MonkeyPatch) -> None:
    alone.setenv(name, word)
    with pytest.raises(ConfigError, match=f"^{name}: expected .*, not '{word}'$"):
        WandbTracker()


def test_what_wandb_keeps_in_files_counts_too(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`wandb offline` and `wandb init` write them into the folder, `wandb login --host` into the user's own."""
    own = tmp_path / ".config" / "wandb"
    own.mkdir(parents=True)
    (own / "settings").write_text("[default]\nbase_url = http://127.0.0.1:9\nproject = theirs\n")
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1:9 login user password {'0' * 40}\n")
    assert WandbTracker().wanted_mode() == "online"
    (tmp_path / "wandb").mkdir()
    for word, expected in [("offline", "offline"), ("disabled", "disabled"), ("online", "online")]:
        (tmp_path / "wandb" / "settings").write_text(f"[default]\nmode = {word}\nentity = we\n")
        assert WandbTracker().wanted_mode() == expected
    assert WandbTracker().destination() == ("we", "theirs")
    alone.setenv("WANDB_PROJECT", "p")
    alone.setenv("WANDB_ENTITY", "e")
    assert WandbTracker().destination() == ("e", "p")
    assert WandbTracker(project="romexp", entity="mine").destination() == ("mine", "romexp")


def test_disabled_means_no_run_and_names_no_folder(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone.setenv("WANDB_MODE", "disabled")
    assert report(WandbTracker(), tmp_path / "x") == ""
    assert list((tmp_path / "x").iterdir()) == []


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server that refuses everything: its address, and what it was asked for."""
    asked: list[str] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_error(403)

        do_GET = do_POST

        def log_message(self, *arguments: object) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}", asked
        one.shutdown()


SCRIPT = """
import logging, sys
from pathlib import Path
from romexp.tracking import WandbTracker
logging.basicConfig(format="%(message)s")
for name in sys.argv[2:]:
    Path(name).mkdir()
    tracker = WandbTracker(mode=sys.argv[1])
    with tracker.run(folder=Path(name), name="one", group="g", job_type="edit", config={}) as run:
        run.log({"loss": 1.0})
    print(run.location)
"""


def in_own_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """W&B reads its settings once in a process."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "WANDB_INIT_TIMEOUT": "3"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("mode", "word"), [("auto", "dryrun"), ("offline", "")])
def test_offline_nothing_is_sent(
    mode: str, word: str, server: tuple[str, list[str]], alone: pytest.MonkeyPatch
) -> None:
    """Not even what W&B reports of its own use."""
    address, asked = server
    for name, value in {**KEY, "WANDB_MODE": word, "WANDB_BASE_URL": address}.items():
        alone.setenv(name, value)
    done = in_own_process(mode, "x")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("x/wandb/offline-run-")
    assert asked == []


@pytest.mark.parametrize("refuses", [True, False])
def test_without_a_server_it_goes_on_offline_and_says_so_once(
    refuses: bool, server: tuple[str, list[str]], alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = server[0] if refuses else "http://127.0.0.1:9"
    for name, value in {**KEY, "WANDB_BASE_URL": address.replace("://", "://user:secret@")}.items():
        alone.setenv(name, value)
    done = in_own_process("online", "x", "y")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "W&B: no run online (" in done.stderr
    assert "`romexp task=sync` sends it later" in done.stderr
    assert "secret" not in done.stderr
    for name, location in zip("xy", done.stdout.split(), strict=True):
        assert Path(location).parent == Path(name) / "wandb"
        assert len(offline_runs(tmp_path / name)) == 1, "task=sync finds it"
    assert bool(server[1]) is refuses, "a control: it was asked"


def test_variables_mean_what_they_mean_to_wandb(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"DIR": "elsewhere", "PROJECT": "p", "ENTITY": "e", "RUN_GROUP": "ours", "TAGS": "a,b"}
    for name, value in given.items():
        alone.setenv(f"WANDB_{name}", value)
    done = in_own_process("offline", "x")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == Path("elsewhere/wandb")
    assert list((tmp_path / "x").iterdir()) == []
    run = read(tmp_path / "elsewhere")
    assert (run["project"], run["tags"]) == ("p", ["a", "b"])
    (header,) = [record["run"] for record in run["records"] if record["type"] == "run"]
    assert (header["entity"], header["run_group"]) == ("e", "ours")


def test_a_run_that_is_written_elsewhere_is_not_sent_yet(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    (tmp_path / "x").mkdir()
    with WandbTracker(mode="offline").run(folder=tmp_path / "x", **NAMES) as run:
        assert is_busy(Path(run.location))
    assert not is_busy(Path(run.location))


def test_what_wandb_refuses_is_one_line(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^tracker: W&B did not begin a run: Invalid project name 'a/b'.*$"):
        report(WandbTracker(mode="offline", project="a/b"), tmp_path / "x")


def test_an_unknown_mode_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"tracker\.mode: 'on' is not auto, online or offline"):
        WandbTracker(mode="on")  # type: ignore[arg-type]


def test_no_tracker_leaves_nothing(tmp_path: Path) -> None:
    assert report(NoTracker(), tmp_path / "x") == ""
    assert list((tmp_path / "x").iterdir()) == []


def test_a_folder_that_wandb_cannot_write_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file" / "wandb"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with WandbTracker(mode="offline").run(folder=tmp_path / "run", **NAMES) as run:
        run.log({"a": 1.0})
    assert f"W&B cannot write into {tmp_path / 'file' / 'wandb'}: its run is in" in caplog.text


def test_what_wandb_loses_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with WandbTracker(mode="offline").run(folder=tmp_path / "run", **NAMES) as run:
        monkeypatch.setattr(type(run.run), "log", full)
        run.log({"a": 1.0})
        run.table("cases", ["a"], [[1]])
    assert caplog.text.count("W&B did not take all of this run") == 2
