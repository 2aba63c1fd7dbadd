"""Jobs that start together measure each case unedited once between them, and neither waits for the other to end."""

from __future__ import annotations

import resource
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from unedited_cases import Measure, cache_in
from unedited_holder import case

from romexp.errors import ConfigError, RecordError, raise_first_error
from romexp.evaluation.unedited import MOST_CLAIMS


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

    @pytest.mark.parametrize(
        "blob",
        [b"", b"garbage", "text", zlib.compress(b"[]"), zlib.compress(b'{"text": 5}'), zlib.compress(b"[" * 9000)],
    )
    def test_a_damaged_row_is_measured_again(self, tmp_path: Path, blob: object) -> None:
        cache = cache_in(tmp_path)
        cache.measurements([case(0), case(1)], Measure("first"))
        with sqlite3.connect(cache.path) as connection:
            connection.execute("UPDATE rows SET value = ? WHERE key = ?", (blob, cache.key(case(1))))
        connection.close()
        again = Measure("again")
        assert cache.measurements([case(0), case(1)], again) == [{"case": 0, "by": "first"}, {"case": 1, "by": "again"}]
        assert again.calls == [[1]]
        unused = Measure()
        cache.measurements([case(0), case(1)], unused)
        assert unused.calls == []  # it was stored in the place of the damaged one

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
        with pytest.raises(
            ConfigError, match=r"cache_dir.*: cannot use .*unedited\.sqlite.*delete it, and it is made again"
        ):
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
