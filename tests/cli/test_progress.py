"""Progress says seconds where they matter, on a terminal and in a pipe; a sweep has a bar of its own."""

from __future__ import annotations

import io
import logging
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from romexp.cli import progress
from romexp.cli.job_record import JobRecord
from romexp.cli.sweep_progress import SweepProgress


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "1 s"), (45, "45 s"), (119, "119 s"), (150, "2 min"), (3600, "60 min"), (12_000, "3.3 h")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert progress.duration(seconds) == shown


def test_lines_in_a_pipe(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    monkeypatch.setattr("romexp.cli.progress.time.monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, logger="romexp"), progress.bars() as bar:
        report = bar("ROME")
        for seconds, done in ((0, 0), (5, 10), (11, 20), (50, 90), (72, 95)):
            now[0] = 100.0 + seconds
            report(done, 100)
    assert [record.getMessage() for record in caplog.records] == [
        "ROME: 20 of 100, about 44 s left",
        "ROME: 95 of 100, about 4 s left",
    ]


def sweep(folder: Path, *, ended: int, started: float, alone: bool = True) -> SweepProgress:
    plan = SweepProgress(
        folder=folder,
        labels=["layer=0", "layer=1", "layer=2", "layer=3"],
        shared=["seed=1"],
        started=started,
        alone=alone,
    )
    plan.write()
    for number in range(ended):
        record = JobRecord.begun(number=number, overrides=["layer=0"])
        record.ended(exit_status=number, error="", traceback="", results="", seconds=1.0).write(folder)
    JobRecord.begun(number=ended, overrides=["layer=0"]).write(folder)
    return SweepProgress.read(folder)


def test_a_sweep_knows_how_far_it_is(tmp_path: Path) -> None:
    plan = sweep(tmp_path, ended=3, started=time.time() - 60)
    assert plan.header() == "4 jobs, each with seed=1"
    assert plan.name(2) == "job 3 of 4 (layer=2)"
    assert plan.done() == 3, "failed ones too, but not the one that is running"
    assert plan.left(plan.done()) == ", about 20 s left"
    assert (plan.left(0), plan.left(4)) == ("", "")


def test_without_a_plan_jobs_are_named_by_their_overrides(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"other": 1}')
    plan = SweepProgress.read(tmp_path)
    assert (plan.total, plan.header(), plan.name(0, fallback="seed=1")) == (None, "sweep", "job 1 (seed=1)")


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to a terminal from now on."""
    screen = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=100, color_system=None)
    )
    return screen


def test_a_sweep_has_a_bar_above_that_of_its_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    screen = terminal(monkeypatch)
    with progress.bars(sweep(tmp_path, ended=2, started=time.time() - 60)) as bar:
        bar("ROME [/x]")(1, 10)
    rows = [row for row in re.split(r"[\r\n]|\x1b\[\??\d+[A-Za-z]", screen.getvalue()) if row.strip()]
    jobs, rome = (next(row for row in reversed(rows) if row.startswith(name)) for name in ("jobs", "ROME [/x]"))
    assert re.search(r"2/4 +0:01:0\d left 60 s", jobs), jobs
    assert "1/10" in rome


def test_jobs_that_run_at_the_same_time_draw_no_bars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    screen = terminal(monkeypatch)
    with progress.bars(sweep(tmp_path, ended=2, started=time.time(), alone=False)) as bar:
        bar("ROME")(1, 10)
    assert screen.getvalue() == ""
