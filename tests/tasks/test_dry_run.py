"""`dry_run=true`: what would run, what is left, how long it will take; and nothing is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import Command, rows

from romexp.errors import RecordError
from romexp.tasks import planned as module
from romexp.tasks.planned import Measured, PeakMemory, measure, peak_memory

CPU = torch.device("cpu")


def lines_of(out: str) -> dict[str, str]:
    return dict(line.partition(": ")[::2] for line in out.splitlines())


def test_it_says_what_the_run_will_do_and_writes_nothing(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    planned = romexp(*tiny, "dataset.limit=8", "dry_run=true")
    assert planned.status == 0, planned.err
    said = lines_of(planned.out)
    assert said["would run"].startswith("task=edit editor=rome dataset=counterfact model=hf ")
    assert said["left"] == "8 of 8 cases"
    assert re.fullmatch(r"at most about \d+ s \(\S+ s a case, from \d of them\)", said["time"])
    assert re.fullmatch(r"about \d+\.\d GB", said["memory of the process"])
    assert list(tmp_path.iterdir()) == [], "nothing is written"
    done = romexp(*tiny, "dataset.limit=8")
    assert f"results: {said['results']}\n" in done.out, "the folder is that of the run"


def test_only_what_is_left_counts(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    romexp(*tiny, "dataset.limit=5", "output_dir=run")
    kept = (tmp_path / "run" / "cases.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "cases.jsonl").write_text("".join(kept[:3]))
    (tmp_path / "run" / "status").write_text("running\n")
    before = rows(tmp_path / "run")
    assert lines_of(romexp(*tiny, "dataset.limit=5", "output_dir=run", "dry_run=true").out)["left"] == "2 of 5 cases"
    assert rows(tmp_path / "run") == before
    romexp(*tiny, "dataset.limit=5", "output_dir=run")
    finished = lines_of(romexp(*tiny, "dataset.limit=5", "output_dir=run", "dry_run=true").out)
    assert finished["left"] == "0 of 5 cases"
    assert "time" not in finished


def test_a_sweep_adds_up_its_jobs(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    done = romexp(*tiny, "dataset.limit=3", "editor.layer=0,2,77", "dry_run=true", "-m")
    assert done.status == 2
    assert re.search(r"^in all: 2 jobs, 6 cases left, one after the other \d+ s$", done.out, re.MULTILINE)
    assert done.out.count("left: 3 of 3 cases") == 2
    assert "editor.layer: 77 is outside" in done.err
    assert not (tmp_path / "outputs" / "edit").exists()


def test_second_moments_are_not_measured_for_it(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("Anna plays the violin.\n\nBob plays the piano.\n")
    given = [each for each in tiny if not each.startswith(("editor.mom2", "cache_dir"))]
    texts = ["covariance=text", "covariance.corpus.path=texts.txt", "cache_dir=cache", "dataset.limit=2"]
    done = romexp(*given, *texts, "dry_run=true")
    assert done.status == 0, done.err
    assert "before: second moments of layer 1 are measured, which is not in the estimate" in done.out
    assert not list(tmp_path.glob("cache/second_moments/**/*.safetensors"))


def test_traces_too(romexp: Command, tiny: list[str], tiny_dir: Path, tmp_path: Path) -> None:
    given = [a for a in tiny if a.startswith(("model", "tracker", "cache"))]
    fact = {"subject": "Bob", "attribute": "violin", "prompt": "Bob plays the"}
    (tmp_path / "facts.json").write_text(json.dumps([{"known_id": n, **fact} for n in range(3)]))
    facts = ["task=trace", "dataset=known", "dataset.path=facts.json"]
    planned = romexp(*given, *facts, "dry_run=true")
    assert planned.status == 0, planned.err
    assert lines_of(planned.out)["left"] == "3 of 3 facts"
    assert not (tmp_path / "outputs").exists()
    assert f"results: {lines_of(planned.out)['results']}\n" in romexp(*given, *facts).out
    assert lines_of(romexp(*given, *facts, "dry_run=true").out)["left"] == "0 of 3 facts"


def test_many_edits_of_one_model_too(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    many = [*tiny, "task=lifelong", "dataset.limit=4", "task.checkpoints=[2]", "output_dir=run"]
    assert lines_of(romexp(*many, "dry_run=true").out)["left"] == "4 of 4 cases"
    assert not (tmp_path / "run").exists()
    assert romexp(*many).status == 0
    assert lines_of(romexp(*many, "dry_run=true").out)["left"] == "0 of 4 cases"


def test_a_task_without_cases_does_not_run(romexp: Command, tmp_path: Path) -> None:
    done = romexp("task=report", "tracker=none", "dry_run=true")
    assert done.status == 0, done.err
    assert done.out.splitlines() == ["would run: task=report", "no estimate: task=report has no cases to measure"]
    assert list(tmp_path.iterdir()) == []


def test_as_many_are_measured_as_the_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    done: list[int] = []

    def work(batch: Any) -> list[Any]:
        now[0] += 2.0 * len(batch) + 1.0
        done.append(len(batch))
        return list(batch)

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    measured = measure(range(100), work, batch_size=25, device=CPU)
    assert (done, measured.cases, measured.seconds) == ([1, 3], 3, 7.0), "10 s at 3 s each, after one to warm up"
    done.clear()
    assert measure([7], work, batch_size=25, device=CPU).cases == 1
    errors = measure(range(9), lambda batch: [RecordError("no") for _ in batch], batch_size=4, device=CPU)
    assert "no" in errors.problem


def test_memory_grows_with_the_batch() -> None:
    measured = Measured(cases=2, seconds=1.0, memory=PeakMemory(before=100, peak=140))
    assert [measured.memory_of(size) for size in (1, 2, 20)] == [140, 140, 500]
    with peak_memory(CPU) as memory:
        held = torch.ones(50_000_000)
        module.time.sleep(5 * module.LOOK_EVERY_S)
    assert memory.peak - memory.before > 0.9 * held.numel() * 4
