"""A cache of the measurements on the unedited model, which all runs share (docs/method.md §9.3).

These measurements do not depend on the editor, so they need to be computed only once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from romexp.errors import ConfigError, RecordError
from romexp.facts import Case, Measurements
from romexp.measured import fault_of
from romexp.os_errors import describe

_log = logging.getLogger(__name__)

CODE = ("lm", "evaluation", "facts.py", "seeds.py")
"""Parts of the package whose code decides what is measured on an unedited model."""

FOLDER = "cache_dir or ROMEXP_CACHE"
"""The settings that choose the file's folder."""

MOST_CLAIMS = 100
"""Most cases that a process claims at a time. Each claim is an open file, and some systems allow only 256 of these."""


Measure = Callable[[Sequence[Case]], list[Measurements | RecordError]]
"""Measures the unedited model on some cases. A case that cannot be measured has its error instead."""
Found = dict[int, Measurements | RecordError]
"""Measurements, or the error of a case that cannot be measured, by case id."""


@dataclass(frozen=True, kw_only=True)
class UneditedCache:
    """Measurements on the unedited model, in one SQLite file that any number of processes may use.

    A process claims a case before it measures it, by a file lock, so that jobs that start together do not measure the
    same cases. If a process is killed, the operating system releases its locks. A process claims at most `MOST_CLAIMS`
    cases of a batch, so the other cases of a larger batch may be measured twice.

    Attributes:
        path: the SQLite file. It is made when the first measurements are stored.
        context: everything besides the case that the measurements depend on: model, evaluator, references, seed and
            code. It must be JSON-serializable.
    """

    path: Path
    context: Mapping[str, Any]

    def measurements(self, cases: Sequence[Case], measure: Measure) -> list[Measurements | RecordError]:
        """The measurements of each case, in order, or the error of a case that cannot be measured.

        1. Take the cases that are in the file.
        2. Measure and store those of the others that no other process has claimed.
        3. Wait for the cases that another process has claimed. Measure those that it did not store.

        Args:
            measure: measures the unedited model on some cases, possibly none. Step 2 always calls it, so that the
                caller can do other work in it before this process waits. Step 3 calls it only if cases are left.
        """
        found = self._load(cases)
        with self._lock_available(case for case in cases if case.case_id not in found) as claimed:
            found |= self._load(claimed)  # Another process may have stored some of them since the first look.
            found |= self._measure_and_store([case for case in claimed if case.case_id not in found], measure)
        others = [case for case in cases if case.case_id not in found]
        if others:
            with self._wait_for_others(others):
                found |= self._load(others)
                if left := [case for case in others if case.case_id not in found]:
                    found |= self._measure_and_store(left, measure)
        return [found[case.case_id] for case in cases]

    def _measure_and_store(self, cases: Sequence[Case], measure: Measure) -> Found:
        """Measure these cases. Errors are returned, but not stored."""
        measured = list(zip(cases, measure(cases), strict=True))
        if good := [(case, result) for case, result in measured if not isinstance(result, RecordError)]:
            self._store(good)
        return {case.case_id: result for case, result in measured}

    def _load(self, cases: Iterable[Case]) -> Found:
        """The measurements of those cases that are in the file, by case id. Damaged ones are removed from it."""
        found: Found = {}
        if not self.path.exists():
            return found
        with self._connection() as connection:
            for case in cases:
                row = connection.execute("SELECT value FROM rows WHERE key = ?", (self.key(case),)).fetchone()
                if row is None:
                    continue
                measured = _unpacked(row[0])
                if measured is None:
                    _log.warning(
                        "%s: what was measured on case %d is damaged; it is measured again", self.path, case.case_id
                    )
                    connection.execute("DELETE FROM rows WHERE key = ?", (self.key(case),))
                else:
                    found[case.case_id] = measured
        return found

    def _store(self, measured: Sequence[tuple[Case, Measurements]]) -> None:
        """Write measurements into the file. A row that another process has written meanwhile is not replaced."""
        values = [(self.key(case), zlib.compress(json.dumps(result).encode())) for case, result in measured]
        with self._connection() as connection:
            connection.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?)", values)

    @contextmanager
    def _lock_available(self, cases: Iterable[Case]) -> Iterator[list[Case]]:
        """Claim the cases that no other process has claimed, without waiting, and yield them.

        Beyond `MOST_CLAIMS`, cases are yielded without a claim. The claims end with the context.
        """
        locks: list[BaseFileLock] = []
        available: list[Case] = []
        try:
            for case in cases:
                if len(locks) < MOST_CLAIMS:
                    lock = self._lock(case)
                    try:
                        lock.acquire(timeout=0)
                    except Timeout:
                        continue
                    locks.append(lock)
                available.append(case)
            yield available
            _remove(locks)
        finally:
            for lock in locks:
                lock.release()

    @contextmanager
    def _wait_for_others(self, cases: Iterable[Case]) -> Iterator[None]:
        """Claim these cases, and wait for the processes that have claimed them. The caller must hold no other claim."""
        with ExitStack() as stack:
            # Every process locks in the same order, so that two processes cannot wait for each other.
            locks = [self._lock(case) for case in sorted(cases, key=self.key)[:MOST_CLAIMS]]
            for lock in locks:
                stack.enter_context(lock)
            yield
            _remove(locks)

    def key(self, case: Case) -> str:
        """The key of a case's row: SHA-256 over the context and the whole case."""
        text = json.dumps([dict(self.context), asdict(case)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _lock(self, case: Case) -> BaseFileLock:
        folder = self.path.with_name("unedited_claims")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cache_dir: {describe(error, self._folders)}") from error
        return FileLock(folder / f"{self.key(case)[:32]}.lock")

    @property
    def _folders(self) -> dict[str, Path | None]:
        return {FOLDER: self.path.parent}

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=60)
            try:
                with connection:  # This commits everything in it as one transaction.
                    connection.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
                    yield connection
            finally:
                connection.close()
        except OSError as error:
            raise ConfigError(f"cache_dir: {describe(error, self._folders)}") from error
        except sqlite3.Error as error:
            raise ConfigError(f"cache_dir: cannot use {self.path}: {_advice(error)}") from error


def _unpacked(value: Any) -> Measurements | None:
    """The measurements that `_store` has packed; None if it is something else."""
    try:
        measured = json.loads(zlib.decompress(value))
    except (zlib.error, TypeError, ValueError, RecursionError):
        return None
    return measured if isinstance(measured, dict) and not fault_of(measured) else None


def _advice(error: sqlite3.Error) -> str:
    """The error, and what to do about it."""
    # An OperationalError comes from the system (no space, no permission); the others tell that the file is damaged.
    damaged = not isinstance(error, sqlite3.OperationalError) or "no such column" in str(error)
    elsewhere = f"free some space, or choose another folder ({FOLDER})"
    return f"{error}; {'it is damaged: delete it, and it is made again' if damaged else elsewhere}"


def _remove(locks: Iterable[BaseFileLock]) -> None:
    """Delete the lock files of measured cases. A process that still waits for such a lock gets it and finds the row."""
    for lock in locks:
        Path(lock.lock_file).unlink(missing_ok=True)
