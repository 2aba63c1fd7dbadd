"""Offline runs are uploaded once; the upload itself is a stand-in for W&B's command."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
from filelock import FileLock
from tiny_runs import Command

from romexp.tasks import sync
from romexp.tracking import WandbTracker

FAKE = """
    import pathlib, sys, time
    (folder,) = sys.argv[1:]
    with open({log!r}, "a") as file:
        file.write(folder + "\\n")
    if "slow" in folder:
        time.sleep(60)
    if "bad" in folder:
        print("wandb: \\x1b[31mERROR\\x1b[0m the server said no\\n")
        sys.exit(0)  # as W&B does
    for path in pathlib.Path(folder).glob("*.wandb"):
        path.with_name(path.name + ".synced").touch()
"""


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for `wandb sync` that marks what it is given, and the file in which it writes that down."""
    log, script = tmp_path / "sent.txt", tmp_path / "fake.py"
    log.touch()
    script.write_text(textwrap.dedent(FAKE.format(log=str(log))))
    monkeypatch.setattr(sync, "COMMAND", (sys.executable, str(script)))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    return log


def offline(result: Path, name: str = "1-a") -> Path:
    """A run as W&B leaves it."""
    run = result / "wandb" / f"offline-run-{name}"
    run.mkdir(parents=True)
    (run / f"run-{name}.wandb").write_bytes(b"log")
    (result / "wandb" / "latest-run").symlink_to(run.name)
    return run


def test_everything_is_sent_once(sent: Path, romexp: Command, tmp_path: Path) -> None:
    runs = [offline(tmp_path / "outputs/edit/m/d/rome/1"), offline(tmp_path / "outputs/trace/m/d/2")]
    online = tmp_path / "outputs/edit/m/d/ft/3/wandb/run-1-b"
    online.mkdir(parents=True)
    (online / "run-b.wandb").touch()
    first = romexp("task=sync")
    assert first.status == 0, first.err
    assert "W&B runs sent: 2; sent before: 0" in first.out
    assert sorted(sent.read_text().split()) == sorted(str(run.relative_to(tmp_path)) for run in runs)
    again = romexp("task=sync")
    assert "W&B runs sent: 0; sent before: 2" in again.out
    assert len(sent.read_text().split()) == 2, "nothing is uploaded twice"


def test_a_failure_is_one_line_and_the_others_go_on(sent: Path, romexp: Command, tmp_path: Path) -> None:
    offline(tmp_path / "outputs/bad")
    good = offline(tmp_path / "outputs/good")
    done = romexp("task=sync")
    assert done.status == 2
    assert "1 of 2 W&B runs were not sent; the same command tries them again" in done.err
    assert "outputs/bad/wandb/offline-run-1-a: not sent: the server said no" in done.err + done.out
    assert sync.is_synced(good)
    (good.parents[2] / "bad").rename(good.parents[2] / "mended")
    assert romexp("task=sync").status == 0
    assert sent.read_text().count("good") == 1


def test_a_server_that_never_answers(sent: Path, romexp: Command, tmp_path: Path) -> None:
    offline(tmp_path / "outputs/slow")
    done = romexp("task=sync", "task.timeout=0.5")
    assert done.status == 2
    assert "no end after 0.5 s (task.timeout)" in done.err + done.out


def test_a_run_that_is_being_written_is_left_alone(sent: Path, romexp: Command, tmp_path: Path) -> None:
    run = offline(tmp_path / "outputs/edit/1")
    with FileLock(tmp_path / "outputs/edit/1/.lock"):
        done = romexp("task=sync")
    assert done.status == 0
    assert "still being written, left for later: 1" in done.out
    assert not sync.is_synced(run)
    assert romexp("task=sync").status == 0
    assert sync.is_synced(run)


def test_only_below_the_folder_that_is_named(sent: Path, romexp: Command, tmp_path: Path) -> None:
    offline(tmp_path / "outputs/edit/1")
    mine = offline(tmp_path / "results/one")
    assert "W&B runs sent: 1" in romexp("task=sync", "output_dir=results/one").out
    assert sync.is_synced(mine)
    assert len(sent.read_text().split()) == 1
    missing = romexp("task=sync", "outputs=nowhere")
    assert (missing.status, "no folder nowhere" in missing.err) == (2, True)


def test_no_key_is_one_message(sent: Path, romexp: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    offline(tmp_path / "outputs/edit/1")
    done = romexp("task=sync")
    assert done.status == 2
    assert "no W&B key: run `wandb login` or set WANDB_API_KEY (runs to send below outputs: 1)" in done.err
    assert sent.read_text() == ""


def test_a_run_of_the_tracker_is_found_and_wandb_agrees_that_it_is_to_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where W&B's command leaves a log when it is imported
    from wandb.cli.beta_sync import _find_wandb_files

    tracker = WandbTracker(mode="offline")
    with tracker.run(folder=tmp_path / "run", name="n", group="g", job_type="edit", config={}) as tracked:
        tracked.summary({"post/ES": 1.0})
    (run,) = sync.offline_runs(tmp_path)
    assert str(run) == tracked.location

    def would_send() -> int:
        return len(_find_wandb_files([run], skip_synced=True, skip_online=True, verbose=False))

    assert (sync.is_synced(run), would_send()) == (False, 1)
    (log,) = run.glob("*.wandb")
    log.with_name(log.name + ".synced").touch()
    assert (sync.is_synced(run), would_send()) == (True, 0)
