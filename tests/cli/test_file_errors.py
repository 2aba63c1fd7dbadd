"""A folder that cannot be written is one line that names the path, the setting and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import ROOT, Command, Done

from romexp.cli.job_record import JobRecord, read_records
from romexp.cli.kept_between_jobs import _read_digests


def assert_one_line(done: Done, *parts: str) -> None:
    assert done.status == 2, done.err
    assert "Traceback" not in done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("romexp: error")]
    for part in parts:
        assert part in line, line


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A file where a folder is wanted: also the superuser cannot write below it."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "folder"


@pytest.mark.parametrize("setting", ["output_dir", "cache_dir", "outputs"])
def test_of_a_run(romexp: Command, tiny: list[str], blocked: Path, setting: str) -> None:
    done = romexp(
        *tiny, "dataset.limit=1", *([] if setting == "output_dir" else ["output_dir=run"]), f"{setting}={blocked}"
    )
    if setting == "outputs":
        assert done.status == 0  # a control: the folder that is not used is not written
        done = romexp(*tiny, "dataset.limit=1", f"{setting}={blocked}")
    assert_one_line(done, str(blocked.parent), "a part of this path is a file and not a folder: move it away")


def test_of_a_name_that_is_too_long(romexp: Command, tiny: list[str]) -> None:
    done = romexp(*tiny, "dataset.limit=1", f"model.name={'x' * 300}")
    assert_one_line(done, "File name too long: give shorter names (model.name), or choose another folder")


def test_of_a_report_and_a_sweep(romexp: Command, tiny: list[str], blocked: Path) -> None:
    assert romexp(*tiny, "dataset.limit=1", "outputs=outputs").status == 0
    report = romexp("task=report", "outputs=outputs", f"output_dir={blocked}", "tracker=none")
    assert_one_line(report, str(blocked.parent), "move it away")
    sweep = romexp("-m", *tiny, "dataset.limit=1", f"outputs={blocked}", "seed=0,1")
    assert sweep.status == 2
    assert "Traceback" not in sweep.err
    assert str(blocked.parent) in sweep.err


def test_a_damaged_record_of_a_job_counts_as_missing(tmp_path: Path) -> None:
    for number in range(2):
        JobRecord.begun(number=number, overrides=()).write(tmp_path)
    for number, content in enumerate(["", "[]", "{}", '{"process": 5}', "[" * 9000], start=2):
        (tmp_path / "jobs" / f"{number}.json").write_text(content)
    assert sorted(read_records(tmp_path)) == [0, 1]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"snippets": 5}', '{"snippets": ""}', "[" * 9000])
def test_damaged_digests_count_as_missing(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert _read_digests(tmp_path / "a.json") is None
    (tmp_path / "a.json").write_text('{"snippets": "00", "idf": "11"}')
    assert _read_digests(tmp_path / "a.json") == {"snippets": "00", "idf": "11"}


def test_a_full_standard_output() -> None:
    """`romexp … > /dev/full`: one line, and nothing more when Python ends."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    code = """
from romexp.cli.console import print_outcome, run_and_report_errors
from romexp.cli.job import Outcome
raise SystemExit(run_and_report_errors(lambda: print_outcome(Outcome(lines=("results: run",)))).status)
"""
    command = [sys.executable, "-c", code]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "romexp: error: cannot write to standard output: No space left on device\n"
    assert done.returncode == 2
