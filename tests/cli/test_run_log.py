"""Each run folder has its log: what was run, what was said, and how it ended."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import pytest
from tiny_runs import Command

from romexp.cli.console import announced
from romexp.cli.run_log import LOG_FILE, RunLog


def test_a_run_leaves_its_log(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    records = tmp_path / "bad.json"
    records.write_text('[{"case_id": 1}, ' + Path(_value(tiny, "dataset.path")).read_text()[1:])
    done = romexp(*tiny, f"dataset.path={records}", "dataset.limit=3", "output_dir=run")
    assert done.status == 0, done.err
    text = (tmp_path / "run" / LOG_FILE).read_text()
    assert " DEBUG romexp.tasks.run: romexp model=hf " in text, "the command"
    assert re.search(r" cases 1 to (\d) of \1 in \d+\.\d s\n", text)
    assert " DEBUG romexp.tasks.run: done after " in text
    assert romexp(*tiny, f"dataset.path={records}", "dataset.limit=3", "output_dir=run").status == 0
    assert (tmp_path / "run" / LOG_FILE).read_text() == text, "a finished run is not run again"


def test_an_error_is_in_the_log_with_its_traceback(
    romexp: Command, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("broken")

    common = [*tiny, "dataset.limit=1", "output_dir=run"]
    with monkeypatch.context() as broken_once:
        broken_once.setattr("romexp.tasks.edit_results.summarize_frame", broken)
        assert romexp(*common).status == 1
    text = (tmp_path / "run" / LOG_FILE).read_text()
    assert "Traceback" in text
    assert "ZeroDivisionError: broken" in text
    assert romexp(*common).status == 0
    assert (tmp_path / "run" / LOG_FILE).read_text().startswith(text), "the next session appends"


def test_jobs_of_a_sweep_have_logs_of_their_own(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    assert romexp(*tiny, "dataset.limit=1", "editor.layer=0,2", "-m").status == 0
    logs = [file.read_text() for file in tmp_path.glob(f"outputs/edit/*/*/*/*/{LOG_FILE}")]
    assert sorted(("editor.layer=0" in text, "editor.layer=2" in text) for text in logs) == [
        (False, True),
        (True, False),
    ]


def test_what_was_said_before_the_folder_was_known_is_there_too(tmp_path: Path) -> None:
    log = logging.getLogger("romexp.somewhere")
    with RunLog.collecting() as run_log:
        log.warning("early %d", 1)
        run_log.write_to(tmp_path)
        log.warning("late")
    log.warning("after")
    lines = (tmp_path / LOG_FILE).read_text().splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "WARNING romexp.somewhere: early 1",
        "WARNING romexp.somewhere: late",
    ]


def test_what_takes_long_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="romexp"):
        with announced("short", after_s=60):
            pass
        with announced("long", after_s=0.01):
            time.sleep(0.2)
    assert [record.getMessage() for record in caplog.records] == ["long"]


def _value(arguments: list[str], name: str) -> str:
    return next(argument.partition("=")[2] for argument in arguments if argument.startswith(f"{name}="))
