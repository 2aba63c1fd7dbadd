"""Jobs that start together measure each case unedited once between them, and neither waits for the other to end."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from unedited_holder import SECONDS, case, hold

from romexp.edit_batch import BatchResult, EditBatch
from romexp.editors.base import Edit, Resources
from romexp.errors import ConfigError, RecordError, raise_first_error
from romexp.evaluation.unedited import MOST_CLAIMS, UneditedCache
from romexp.facts import Case, EditRequest, Measurements
from romexp.lm.weight_delta import Dense, WeightDelta
from romexp.results.rows import CaseResult

SPAWN = mp.get_context("spawn")


def cache_in(folder: Path, **context: Any) -> UneditedCache:
    return UneditedCache(path=folder / "unedited.sqlite", context=context)


@dataclass
class Measure:
    """Measures cases and remembers which, call by call.

    Attributes:
        bad: cases that cannot be measured.
        during: is called while the cases are measured, that is, while they are claimed.
    """

    who: str = "me"
    bad: tuple[int, ...] = ()
    during: Callable[[], object] = lambda: None
    calls: list[list[int]] = field(default_factory=list)

    def __call__(self, cases: Sequence[Case]) -> list[Measurements | RecordError]:
        if not cases:  # the call before any waiting, in which the caller can do other work
            return []
        self.calls.append([one.case_id for one in cases])
        self.during()
        return [
            RecordError("no answer", field="prompt")
            if one.case_id in self.bad
            else {"case": one.case_id, "by": self.who}
            for one in cases
        ]


class TestOneProcess:
    def test_what_is_kept_is_not_measured_again(self, tmp_path: Path) -> None:
        """In whatever order it is asked for, and by an object of its own."""
        first, second = Measure("first"), Measure("second")
        cache_in(tmp_path).measurements([case(0), case(1)], first)
        found = cache_in(tmp_path).measurements([case(2), case(1), case(0)], second)
        assert (first.calls, second.calls) == ([[0, 1]], [[2]])
        assert found == [
            {"case": 2, "by": "second"},
            {"case": 1, "by": "first"},
            {"case": 0, "by": "first"},
        ]
        third = Measure()
        assert cache_in(tmp_path).measurements([case(2), case(1), case(0)], third) == found
        assert third.calls == []

    def test_no_cases_are_no_work(self, tmp_path: Path) -> None:
        measure = Measure()
        assert cache_in(tmp_path).measurements([], measure) == []
        assert measure.calls == []

    def test_an_error_stands_in_place_and_is_not_kept(self, tmp_path: Path) -> None:
        """Somebody else may be able to measure the case."""
        measure = Measure(bad=(1,))
        first, error, third = cache_in(tmp_path).measurements([case(0), case(1), case(2)], measure)
        assert isinstance(error, RecordError)
        assert [first, third] == [{"case": 0, "by": "me"}, {"case": 2, "by": "me"}]
        assert measure.calls == [[0, 1, 2]]
        again = Measure("again")
        found = cache_in(tmp_path).measurements([case(0), case(1), case(2)], again)
        assert again.calls == [[1]]
        assert found == [first, {"case": 1, "by": "again"}, third]

    def test_a_changed_record_or_context_is_measured_anew(self, tmp_path: Path) -> None:
        cache_in(tmp_path, seed=0).measurements([case(1)], Measure())
        measure = Measure()
        cache_in(tmp_path, seed=0).measurements([replace(case(1), paraphrase_prompts=("S was",))], measure)
        cache_in(tmp_path, seed=1).measurements([case(1)], measure)
        assert measure.calls == [[1], [1]]
        cache_in(tmp_path, seed=0).measurements([case(1)], measure)
        assert len(measure.calls) == 2  # a control: what is as it was is kept

    def test_claims_are_given_back_after_an_error(self, tmp_path: Path) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            cache_in(tmp_path).measurements([case(0)], Measure(during=fail))
        measure = Measure()
        cache_in(tmp_path).measurements([case(0)], measure)
        assert measure.calls == [[0]]

    def test_claims_are_cleared_away(self, tmp_path: Path) -> None:
        seen: list[int] = []
        folder = tmp_path / "unedited_claims"
        measure = Measure(during=lambda: seen.append(len(list(folder.iterdir()))))
        cache_in(tmp_path).measurements([case(0), case(1)], measure)
        assert seen == [2]
        assert not list(folder.iterdir())

    def test_a_large_batch_does_not_run_out_of_open_files(self, tmp_path: Path) -> None:
        cache, measure = cache_in(tmp_path), Measure()
        cases = [case(number) for number in range(400)]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        try:
            found = cache.measurements(cases, measure)
            with cache._wait_for_others(cases):  # so many claims of others cannot be had here
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert MOST_CLAIMS < 256 < len(cases)
        assert [row["case"] for row in raise_first_error(found)] == list(range(400))
        assert measure.calls == [list(range(400))]

    def test_a_file_that_is_no_cache_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "unedited.sqlite").write_text("something else, and long enough to be no empty database")
        with pytest.raises(ConfigError, match=r"cache_dir: cannot use .*unedited\.sqlite"):
            cache_in(tmp_path).measurements([case(0)], Measure())


class TestOthersAtWork:
    """Another thread stands for another process: file locks know no difference."""

    @contextmanager
    def measuring(self, folder: Path, numbers: list[int], *, bad: tuple[int, ...] = ()) -> Iterator[threading.Event]:
        """Somebody is measuring these cases until the event is set."""
        begun, go = threading.Event(), threading.Event()

        def during() -> None:
            begun.set()
            assert go.wait(60)

        measure = Measure("other", bad=bad, during=during)
        arguments = ([case(number) for number in numbers], measure)
        thread = threading.Thread(target=cache_in(folder).measurements, args=arguments)
        thread.start()
        try:
            assert begun.wait(60)
            yield go
        finally:
            go.set()
            thread.join(60)
            assert not thread.is_alive()

    def test_cases_that_overlap_are_shared_out(self, tmp_path: Path) -> None:
        """What nobody else is at is measured at once, while the other is still at work; the rest is waited for."""
        with self.measuring(tmp_path, [0, 1]) as go:
            measure = Measure(during=go.set)
            found = cache_in(tmp_path).measurements([case(1), case(2)], measure)
        assert measure.calls == [[2]]
        assert found == [{"case": 1, "by": "other"}, {"case": 2, "by": "me"}]

    def test_what_comes_to_nothing_there_is_measured_here(self, tmp_path: Path) -> None:
        """In a second call; a case that cannot be measured here either is an error in its place."""
        with self.measuring(tmp_path, [0, 1], bad=(0, 1)) as go:
            measure = Measure(bad=(1,), during=go.set)
            zero, one, two = cache_in(tmp_path).measurements([case(0), case(1), case(2)], measure)
        assert measure.calls == [[2], [0, 1]]
        assert isinstance(one, RecordError)
        assert [zero, two] == [{"case": 0, "by": "me"}, {"case": 2, "by": "me"}]


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
