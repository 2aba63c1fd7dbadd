"""The collapse watch of `task=lifelong`: points at checkpoints, a rule that stops, and reports made of such runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_lifelong_task import many
from tiny_runs import Command, rows

from romexp.results.folder import RunFolder

__all__ = ["many"]  # a fixture


@pytest.fixture(scope="module")
def watched(many: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for MEMIT on two layers of the tiny model, watched on three short texts."""
    texts = tmp_path_factory.mktemp("watched") / "texts.txt"
    texts.write_text("Anna Zoë plays the violin.\nParis is in France.\nThe bank is near the river.\n")
    return [
        *many,
        f"task.watch.corpus.path={texts}",
        "task.watch.corpus.unit=line",
        "task.watch.sampler.max_length=10",
    ]


def points(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]


def test_points_and_a_stop(romexp: Command, watched: list[str], tmp_path: Path) -> None:
    steps = ["task.edits=6", "task.step=2", "task.checkpoints=[2,4]"]
    done = romexp(*watched, *steps, "output_dir=whole")
    assert done.status == 0, done.err
    found = points(tmp_path / "whole")
    assert [point["step"] for point in found] == [0, 2, 4, 6]
    assert set(found[0]) == {"step", "perplexity", "hidden_shift", "entropy"}
    assert set(found[1]) - set(found[0]) == {"weight_change/1", "weight_change/2"}
    assert found[0]["hidden_shift"] == 0 < found[1]["hidden_shift"]
    assert "texts about other things: perplexity" in done.out
    whole = RunFolder(tmp_path / "whole")
    assert (whole.read("summary") or {})["watch"] == found
    assert "stopped" not in (whole.read("manifest") or {})

    limit = (found[1]["hidden_shift"] + found[2]["hidden_shift"]) / 2  # between the shifts after 2 and after 4 edits
    assert found[1]["hidden_shift"] < found[2]["hidden_shift"]
    stop = [*steps, f"task.watch.stop.hidden_shift={limit}", "output_dir=stopped"]
    done = romexp(*watched, *stop)
    assert done.status == 0, done.err
    said = (RunFolder(tmp_path / "stopped").read("manifest") or {})["stopped"]
    assert said["edits"] == 4
    assert "hidden states are shifted" in said["reason"]
    assert "stopped after 4 edits: hidden states" in done.out
    assert rows(tmp_path / "stopped") == [row for row in rows(tmp_path / "whole") if row["measured_at"] <= 4]
    assert (RunFolder(tmp_path / "stopped").read("summary") or {})["n_edits"] == 4


def test_a_finished_run_keeps_its_results(romexp: Command, watched: list[str], tmp_path: Path) -> None:
    """Run again, it prints the same; a summary that is lost is made again as it was; lost rows are an error."""
    arguments = [*watched, "task.edits=4", "task.step=2", "task.checkpoints=[2]", "save_deltas=true", "output_dir=run"]
    first, run = romexp(*arguments), RunFolder(tmp_path / "run")
    assert first.status == 0, first.err
    summary, parquet = run.read("summary"), run.parquet.read_bytes()
    shutil.rmtree(tmp_path / "run" / "deltas")  # so that the run is opened in full: they may be moved away
    again = romexp(*arguments)
    assert (again.status, again.out) == (0, first.out)
    assert run.read("summary") == summary
    (tmp_path / "run" / "summary.json").unlink()
    again = romexp(*arguments)
    assert "made again" in again.err
    assert again.out == first.out
    assert (run.read("summary"), run.parquet.read_bytes()) == (summary, parquet)
    lines = run.cases.read_bytes().splitlines(keepends=True)
    run.cases.write_bytes(b"".join(lines[:2]))
    lost = romexp(*arguments)
    assert lost.status == 2
    assert "rows are lost" in lost.err


def test_no_watch(romexp: Command, watched: list[str], tmp_path: Path) -> None:
    kept = [each for each in watched if not each.startswith("task.watch")]
    done = romexp(*kept, "task.edits=2", "task.step=2", "task.watch=null", "output_dir=run")
    assert done.status == 0, done.err
    assert not (tmp_path / "run" / "curves.jsonl").exists()
    assert "texts about other things" not in done.out


def test_a_report_of_sequences(romexp: Command, watched: list[str], tmp_path: Path) -> None:
    steps = ["task.edits=6", "task.step=2", "task.checkpoints=[2,4]", "outputs=runs"]
    assert romexp(*watched, *steps).status == 0
    assert romexp(*watched, *steps, "editor.mom2_update_weight=200").status == 0
    done = romexp("task=report", "outputs=runs", "output_dir=report")
    assert done.status == 0, done.err
    text = (tmp_path / "report" / "lifelong.md").read_text()
    assert "6 edits, 2 at a time" in text
    assert text.count("right after") == text.count("at the end") == 2
    assert "mom2_update_weight=200" in (tmp_path / "report" / "lifelong.csv").read_text()
    assert "AlphaEdit's paper" not in text  # neither model nor numbers of edits are theirs
    drawn = {path.name for path in (tmp_path / "report" / "figures").iterdir()}
    assert {f"tiny_counterfact_lifelong_{name}.png" for name in ("scores", "retention", "collapse")} <= drawn
