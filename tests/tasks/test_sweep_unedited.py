"""Jobs that start together measure each case unedited once between them, and neither waits for the other to end."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import resource
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from unedited_holder import SECONDS, case, hold

from romexp.editors.base import Edit, Resources
from romexp.errors import RecordError
from romexp.facts import Case, EditRequest
from romexp.lm.weight_delta import Dense, WeightDelta
from romexp.tasks.edit_batch import BatchResult, CaseRunner
from romexp.tasks.unedited import UneditedCache

SPAWN = mp.get_context("spawn")


@dataclass(frozen=True)
class Editor:
    name: str

    def __call__(self, lm: Any, requests: Sequence[EditRequest], *, resources: Resources) -> list[Edit]:
        return [Edit(delta=WeightDelta(terms={"w": Dense(value=torch.ones(1))})) for _ in requests]


@dataclass(frozen=True)
class SlowEvaluator:
    """Writes down what it measures, and takes its time."""

    log: Path
    who: str
    bad: int = -1
    needs_references: bool = False

    def __call__(self, lm: Any, cases: Sequence[Case], *, deltas: Any, seed: int, references: Any) -> list[Any]:
        for one in cases:
            if one.case_id == self.bad:
                raise RecordError("no answer", index=one.case_id, field="prompt")
        time.sleep(SECONDS)
        with self.log.open("a") as file:
            for one, delta in zip(cases, deltas, strict=True):
                file.write(json.dumps([self.who, one.case_id, delta is None]) + "\n")
        return [
            {"case": one.case_id, "by": self.who if delta is None else None}
            for one, delta in zip(cases, deltas, strict=True)
        ]


def runner(folder: Path, who: str, bad: int = -1) -> CaseRunner:
    return CaseRunner(
        lm=None,  # type: ignore[arg-type]
        editor=Editor(name=who),
        resources=Resources(second_moment=lambda layer: 1 / 0),  # type: ignore[arg-type, return-value]
        evaluator=SlowEvaluator(log=folder / "log", who=who, bad=bad),
        references=None,
        unedited=UneditedCache(path=folder / "unedited.sqlite", context={}),
    )


def work(folder: Path, who: str, go: Any, batches: list[list[int]]) -> None:
    run = runner(folder, who)
    go.wait(60)
    for batch in batches:
        result = run([case(number) for number in batch])
        assert [row["case_id"] for row in result.rows] == batch
        assert [row["pre"]["case"] for row in result.rows] == batch
        assert all(row["post"]["by"] is None for row in result.rows)


def measured(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def test_two_processes_measure_each_case_unedited_once(tmp_path: Path) -> None:
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


def test_a_claimed_case_is_edited_at_once_and_its_row_awaited(tmp_path: Path) -> None:
    """Also where cases overlap only in part."""
    cache = UneditedCache(path=tmp_path / "unedited.sqlite", context={})
    other = SPAWN.Process(target=hold, args=(tmp_path, [0, 1], True))
    other.start()
    _until(lambda: (tmp_path / "held").exists())
    result = runner(tmp_path, "B")([case(0), case(2)])
    assert [(number, unedited) for _, number, unedited in measured(tmp_path)] == [(2, True), (0, False), (2, False)]
    assert [row["pre"]["by"] for row in result.rows] == ["A", "B"]
    assert set(cache.get([case(0), case(1), case(2)])) == {0, 1, 2}
    other.join()


def test_what_a_killed_process_claimed_is_measured_by_the_next(tmp_path: Path) -> None:
    other = SPAWN.Process(target=hold, args=(tmp_path, [0], False))
    other.start()
    _until(lambda: (tmp_path / "held").exists())
    os.kill(other.pid or 0, signal.SIGKILL)
    result = runner(tmp_path, "B")([case(0)])
    assert [row["pre"]["by"] for row in result.rows] == ["B"]
    other.join()


def test_a_case_that_cannot_be_measured_is_set_aside_while_waiting(tmp_path: Path) -> None:
    """The other process gave up on it, so that it is measured here after all."""
    unedited = UneditedCache(path=tmp_path / "unedited.sqlite", context={})
    aside: list[dict[str, Any]] = []
    found = runner(tmp_path, "B", bad=1)._awaited([case(0), case(1)], aside)
    assert set(found) == {0}
    assert [entry["case_id"] for entry in aside] == [1]
    assert set(unedited.get([case(0), case(1)])) == {0}


def test_claims_of_one_process_do_not_overlap(tmp_path: Path) -> None:
    cache = UneditedCache(path=tmp_path / "unedited.sqlite", context={})
    with cache.claimed([case(0), case(1)]) as first, cache.claimed([case(1), case(2)]) as second:
        assert [c.case_id for c in first] == [0, 1]
        assert [c.case_id for c in second] == [2]
    with pytest.raises(ValueError, match="x"), cache.claimed([case(0)]):
        raise ValueError("x")
    with cache.claimed([case(0)]) as again:
        assert [c.case_id for c in again] == [0]


def test_a_large_batch_does_not_run_out_of_open_files(tmp_path: Path) -> None:
    cache = UneditedCache(path=tmp_path / "unedited.sqlite", context={})
    cases = [case(number) for number in range(400)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with cache.claimed(cases) as claimed:
            cache.put(claimed, [{"x": one.case_id} for one in claimed])
        with cache.awaited(cases):
            assert len(cache.get(cases)) == len(cases)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_result_has_what_a_batch_has(tmp_path: Path) -> None:
    assert isinstance(runner(tmp_path, "A")([case(0)]), BatchResult)
