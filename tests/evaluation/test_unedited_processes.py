"""Several processes that edit and measure the same cases share what they measure on the unedited model."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from unedited_cases import Measure, cache_in
from unedited_holder import SECONDS, case, hold

from romexp.edit_batch import BatchResult, EditBatch
from romexp.editors.base import Edit, Resources
from romexp.errors import RecordError, raise_first_error
from romexp.facts import Case, EditRequest
from romexp.lm.weight_delta import Dense, WeightDelta
from romexp.results.rows import CaseResult

SPAWN = mp.get_context("spawn")


@dataclass(frozen=True)
class Editor:
    name: str

    def __call__(self, lm: Any, requests: Sequence[EditRequest], *, resources: Resources) -> list[Edit | RecordError]:
        return [Edit(delta=WeightDelta(terms={"w": Dense(value=torch.ones(1))})) for _ in requests]


@dataclass(frozen=True)
class SlowEvaluator:
    """Writes down what it measures, and takes its time."""

    log: Path
    who: str
    bad: int = -1
    needs_references: bool = False

    def __call__(self, lm: Any, cases: Sequence[Case], *, deltas: Any, seed: int, references: Any) -> list[Any]:
        time.sleep(SECONDS)
        with self.log.open("a") as file:
            for one, delta in zip(cases, deltas, strict=True):
                file.write(json.dumps([self.who, one.case_id, delta is None]) + "\n")
        return [
            RecordError("no answer", field="prompt")
            if one.case_id == self.bad
            else {"case": one.case_id, "by": self.who if delta is None else None}
            for one, delta in zip(cases, deltas, strict=True)
        ]


def batch(folder: Path, who: str, bad: int = -1) -> EditBatch:
    return EditBatch(
        lm=None,  # type: ignore[arg-type]
        editor=Editor(name=who),
        resources=Resources(second_moment=lambda layer: 1 / 0),  # type: ignore[arg-type, return-value]
        evaluator=SlowEvaluator(log=folder / "log", who=who, bad=bad),
        references=None,
        unedited=cache_in(folder),
    )


def results(done: BatchResult) -> list[CaseResult]:
    return [measured.result for measured in raise_first_error(done.outcomes)]


def by_whom(done: BatchResult) -> list[str]:
    """Who measured the unedited model on each case."""
    return [(result.before or {})["by"] for result in results(done)]


def work(folder: Path, who: str, go: Any, batches: list[list[int]]) -> None:
    run = batch(folder, who)
    go.wait(60)
    for numbers in batches:
        found = results(run([case(number) for number in numbers]))
        assert [result.case_id for result in found] == numbers
        assert [(result.before or {})["case"] for result in found] == numbers
        assert all((result.after or {})["by"] is None for result in found)


def measured(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


class TestProcesses:
    def test_two_of_them_measure_each_case_unedited_once(self, tmp_path: Path) -> None:
        batches = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        go = SPAWN.Barrier(2)
        other = SPAWN.Process(target=work, args=(tmp_path, "A", go, batches))
        other.start()
        work(tmp_path, "B", go, batches)
        other.join(60)
        assert other.exitcode == 0
        before = [number for _, number, unedited in measured(tmp_path) if unedited]
        after = [number for _, number, unedited in measured(tmp_path) if not unedited]
        assert sorted(before) == list(range(12))
        assert sorted(after) == sorted([*range(12)] * 2)
        assert not list((tmp_path / "unedited_claims").iterdir()), "claims are cleared away"

    def test_a_claimed_case_is_edited_at_once_and_its_measurements_awaited(self, tmp_path: Path) -> None:
        """Also where cases overlap only in part."""
        other = SPAWN.Process(target=hold, args=(tmp_path, [0, 1]), kwargs={"seconds": 4 * SECONDS})
        other.start()
        _until(lambda: (tmp_path / "held").exists())
        done = batch(tmp_path, "B")([case(0), case(2)])
        assert [(number, unedited) for _, number, unedited in measured(tmp_path)] == [
            (2, True),
            (0, False),
            (2, False),
        ]
        assert by_whom(done) == ["A", "B"]
        kept = Measure()
        cache_in(tmp_path).measurements([case(0), case(1), case(2)], kept)
        assert kept.calls == []
        other.join(60)

    def test_what_a_killed_process_claimed_is_measured_by_the_next(self, tmp_path: Path) -> None:
        other = SPAWN.Process(target=hold, args=(tmp_path, [0]), kwargs={"seconds": 60})
        other.start()
        _until(lambda: (tmp_path / "held").exists())
        os.kill(other.pid or 0, signal.SIGKILL)
        assert by_whom(batch(tmp_path, "B")([case(0)])) == ["B"]
        other.join(60)

    def test_a_case_that_cannot_be_measured_is_an_error_after_waiting_for_it(self, tmp_path: Path) -> None:
        """The other process gave up on it, so that it is measured here after all."""
        keywords = {"seconds": 2 * SECONDS, "succeed": False}
        other = SPAWN.Process(target=hold, args=(tmp_path, [0, 1]), kwargs=keywords)
        other.start()
        _until(lambda: (tmp_path / "held").exists())
        first, error = batch(tmp_path, "B", bad=1)([case(0), case(1)]).outcomes
        assert isinstance(error, RecordError)
        assert not isinstance(first, RecordError)
        assert (first.result.before or {})["by"] == "B"
        assert sorted(number for _, number, _ in measured(tmp_path)) == [0, 0, 1, 1], "each side once"
        other.join(60)


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
