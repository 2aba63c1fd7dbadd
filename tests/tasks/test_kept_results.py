"""`done` is believed only with its files: what is lost is made again from rows, lost rows are measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import Command, Done, record, rows

from romexp.results.folder import RunFolder

FINISHED = "finished before; delete its folder to repeat it"
CASES = "dataset.limit=3"


@pytest.fixture(scope="session")
def kept() -> dict[str, Path]:
    """The folder of one finished run of three cases, made by the first test that asks for it."""
    return {}


@pytest.fixture
def run(
    kept: dict[str, Path], romexp: Command, tiny: list[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A copy of a finished run with deltas, to damage."""
    if not kept:
        folder = tmp_path_factory.mktemp("finished") / "run"
        assert romexp(*tiny, CASES, "save_deltas=true", f"output_dir={folder}").status == 0
        kept["run"] = folder
    shutil.copytree(kept["run"], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def again(romexp: Command, tiny: list[str]) -> Callable[[], Done]:
    return lambda: romexp(*tiny, CASES, "save_deltas=true", "output_dir=run")


def change_row(folder: Path, number: int, **parts: Any) -> None:
    changed = [row | parts if row["case_id"] == number else row for row in rows(folder, without=())]
    (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", None),
        ("summary.json", b""),
        ("summary.json", b'{"n_cases": 3, "pre": [], "post": 5}'),
        ("summary.json", b'{"n_cases": 0, "n_failed": 0, "pre": {}, "post": {}}'),
        ("cases.parquet", None),
        ("cases.parquet", b"garbage"),
    ],
)
def test_what_is_made_from_rows_is_made_again(
    run: Path, kept: dict[str, Path], again: Callable[[], Done], name: str, content: bytes | None
) -> None:
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    before = (run / "cases.jsonl").read_bytes()
    done = again()
    assert (done.status, "made again from rows" in done.err) == (0, True), done.err
    assert (run / "cases.jsonl").read_bytes() == before
    for file in ("summary.json", "cases.parquet"):
        assert (run / file).read_bytes() == (kept["run"] / file).read_bytes()
    assert "3 cases" in done.out
    assert FINISHED in again().err


def _lose_rows_and_summary(run: Path) -> None:
    (run / "cases.jsonl").unlink()
    (run / "summary.json").unlink()


LOSSES: dict[str, tuple[Callable[[Path], object], int]] = {
    "rows and summary": (_lose_rows_and_summary, 3),
    "empty": (lambda run: (run / "cases.jsonl").write_bytes(b""), 3),
    "not UTF-8": (lambda run: (run / "cases.jsonl").write_bytes(b'{"caf\xe9": 1}\n'), 3),
    "nested": (lambda run: (run / "cases.jsonl").write_bytes(b"[" * 9000 + b"\n"), 3),
    "no post": (lambda run: change_row(run, 1, post=None), 1),
    "another type": (lambda run: change_row(run, 1, post={"rewrite_prompts": [1]}), 1),
    "a huge id": (lambda run: change_row(run, 1, case_id=2**64), 1),
    "a delta": (lambda run: (run / "deltas" / "1.safetensors").unlink(), 1),
    "half a delta": (lambda run: (run / "deltas" / "1.safetensors").write_bytes(b"garbage"), 1),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_lost_rows_are_measured_again(run: Path, kept: dict[str, Path], again: Callable[[], Done], loss: str) -> None:
    lose, count = LOSSES[loss]
    lose(run)
    done = again()
    assert done.status == 0, done.err
    assert "finished before, but run lacks" in done.err
    assert f"the rows of {count} of 3" in done.err or "some of its rows" in done.err
    assert FINISHED in again().err
    # `edit` holds the losses of all steps; alone, a case is computed in another batch, and so up to rounding only.
    numbers = {row["case_id"]: row["post"]["rewrite_prompts"][0] for row in RunFolder(run).rows()}
    expected = {row["case_id"]: row["post"]["rewrite_prompts"][0] for row in rows(kept["run"])}
    assert numbers.keys() == expected.keys()
    assert all(numbers[i] == pytest.approx(expected[i], rel=1e-3) for i in expected)
    assert json.loads((run / "summary.json").read_text())["n_cases"] == 3


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 9000,
        b'{"identity": 5}',
        b'{"identity": {}, "sessions": 5}',
        b'{"identity": {}, "hash": []}',
    ],
)
def test_a_damaged_manifest_is_one_line(run: Path, again: Callable[[], Done], manifest: bytes) -> None:
    (run / "manifest.json").write_bytes(manifest)
    done = again()
    (line,) = [line for line in done.err.splitlines() if "error" in line]
    assert done.status == 2
    assert "run/manifest.json" in line
    assert "move the folder away, or set another output_dir" in line


@pytest.mark.parametrize("name", ["cases.jsonl", "summary.json", "status", "manifest.json"])
def test_a_folder_in_the_place_of_a_file_is_one_line(run: Path, again: Callable[[], Done], name: str) -> None:
    (run / name).unlink()
    (run / name).mkdir()
    done = again()
    (line,) = [line for line in done.err.splitlines() if "error" in line]
    assert done.status == 2
    assert f"run/{name}: Is a directory: there is a folder in the place of this file: move it away" in line
    assert "Traceback" not in done.err


def test_left_over_parts_are_no_content(run: Path, romexp: Command, again: Callable[[], Done]) -> None:
    (run / "cases.jsonl").unlink()
    (run / "cases.parquet.123.part").write_bytes(b"half")
    assert again().status == 0
    assert not list(run.glob("*.part"))
    report = run.parent / "report"
    report.mkdir()
    (report / "report.json.123.part").write_text("{")
    done = romexp("task=report", "outputs=.", "output_dir=report", "task.figures=false", "tracker=none")
    assert done.status == 0, done.err
    assert (report / "report.json").is_file()


def test_one_odd_record_leaves_the_others_measured(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    """Its kinds are those of tests/data/test_data_odd_records.py; here they go through a whole run."""
    good = [json.dumps(record(number)) for number in range(2)]
    odd = [
        json.dumps(record(5) | {"case_id": "@"}).replace('"@"', value) for value in ("1" * 5000, "1e400", str(2**64))
    ]
    path = tmp_path / "odd.json"
    path.write_text("[" + ", ".join([good[0], *odd, "[" * 3000 + "]" * 3000, good[1]]) + "]")
    largest = json.dumps(record(3) | {"case_id": 2**63 - 1})
    path.write_text(path.read_text()[:-1] + f", {largest}]")
    done = romexp(*tiny, f"dataset.path={path}", "output_dir=run")
    assert done.status == 0, done.err
    assert [row["case_id"] for row in rows(tmp_path / "run")] == [0, 1, 2**63 - 1]
    assert "set aside: 4 records" in done.out
    page = romexp("task=report", "outputs=.", "output_dir=report", "task.figures=false", "page=true", "tracker=none")
    assert page.status == 0, page.err
