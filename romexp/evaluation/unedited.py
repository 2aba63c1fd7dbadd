"""Metrics before the edit do not depend on the editor: computed once, shared by all runs (docs/method.md §9.3)."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

import romexp
from romexp.errors import ConfigError, RecordError
from romexp.facts import Case, Measurements

CODE = ("lm", "evaluation", "seeds.py")
"""Parts of the package whose code decides what is measured on an unedited model."""

MOST_CLAIMS = 100
"""Of one process: each is an open file, of which systems allow as few as 256."""


Measure = Callable[[Sequence[Case]], list[Measurements | RecordError]]
"""Measures the unedited model on some cases; in the place of one that cannot be measured stands its error."""
Found = dict[int, Measurements | RecordError]
"""By case id."""


@dataclass(frozen=True, kw_only=True)
class UneditedCache:
    """What was measured on the unedited model, in one SQLite file that any number of processes may use.

    So that jobs which start together do not all measure the same cases, a process claims those that it is about to
    measure by a file lock each. The locks of a killed process are free at once. Of a very large batch only the first
    cases are claimed; then the others may be measured twice.

    Attributes:
        path: the file; made when first written.
        context: all that the measurements depend on besides the case: model, evaluator, references, seed, code.
            JSON-ready.
    """

    path: Path
    context: Mapping[str, Any]

    def measurements(self, cases: Sequence[Case], measure: Measure) -> list[Measurements | RecordError]:
        """The measurements of each case, in order; in the place of a case that cannot be measured, its error.

        What is kept is taken from the file. What is not, and nobody else is measuring, is measured and kept. What
        another process is measuring just now is waited for at the end, and measured here if it came to nothing there.

        Args:
            measure: measures the unedited model on some cases, maybe none. It is called once before any waiting, so
                that the caller can do other work in it, and a second time only where another process gave up.
        """
        found = self._kept(cases)
        with self._lock_available(case for case in cases if case.case_id not in found) as claimed:
            found |= self._kept(claimed)  # what was kept since the first look
            found |= self._measured([case for case in claimed if case.case_id not in found], measure)
        others = [case for case in cases if case.case_id not in found]
        if others:
            with self._wait_for_others(others):
                found |= self._kept(others)
                if left := [case for case in others if case.case_id not in found]:
                    found |= self._measured(left, measure)
        return [found[case.case_id] for case in cases]

    def _measured(self, cases: Sequence[Case], measure: Measure) -> Found:
        """Measure these cases, and keep all but errors."""
        found = list(zip(cases, measure(cases), strict=True))
        if good := [(case, own) for case, own in found if not isinstance(own, RecordError)]:
            self._keep(good)
        return {case.case_id: own for case, own in found}

    def _kept(self, cases: Iterable[Case]) -> Found:
        """What is there, by case id."""
        found: Found = {}
        if not self.path.exists():
            return found
        with self._connection() as connection:
            for case in cases:
                row = connection.execute("SELECT value FROM rows WHERE key = ?", (self.key(case),)).fetchone()
                if row is not None:
                    found[case.case_id] = json.loads(zlib.decompress(row[0]))
        return found

    def _keep(self, measured: Sequence[tuple[Case, Measurements]]) -> None:
        """Put measurements into the file; what another process put there meanwhile stays."""
        values = [(self.key(case), zlib.compress(json.dumps(own).encode())) for case, own in measured]
        with self._connection() as connection:
            connection.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?)", values)

    @contextmanager
    def _lock_available(self, cases: Iterable[Case]) -> Iterator[list[Case]]:
        """Those of the cases that no other process has claimed, claimed until the context ends. Never waits."""
        locks: list[BaseFileLock] = []
        mine: list[Case] = []
        try:
            for case in cases:
                if len(locks) < MOST_CLAIMS:
                    lock = self._lock(case)
                    try:
                        lock.acquire(timeout=0)
                    except Timeout:
                        continue
                    locks.append(lock)
                mine.append(case)
            yield mine
            _remove(locks)
        finally:
            for lock in locks:
                lock.release()

    @contextmanager
    def _wait_for_others(self, cases: Iterable[Case]) -> Iterator[None]:
        """Claim these cases, waiting for whoever is measuring them. Hold no claim before."""
        with ExitStack() as stack:
            # Always in the same order, so that two processes cannot wait for each other.
            locks = [self._lock(case) for case in sorted(cases, key=self.key)[:MOST_CLAIMS]]
            for lock in locks:
                stack.enter_context(lock)
            yield
            _remove(locks)

    def key(self, case: Case) -> str:
        """Sha256 over the context and the whole case."""
        text = json.dumps([dict(self.context), asdict(case)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _lock(self, case: Case) -> BaseFileLock:
        folder = self.path.with_name("unedited_claims")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cache_dir: cannot use {folder}: {error}") from error
        return FileLock(folder / f"{self.key(case)[:32]}.lock")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=60)
            try:
                with connection:  # one transaction
                    connection.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
                    yield connection
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"cache_dir: cannot use {self.path}: {error}") from error


def _remove(locks: Iterable[BaseFileLock]) -> None:
    """Clear the files of locks away whose cases are measured: who waits at one of them finds the row all the same."""
    for lock in locks:
        Path(lock.lock_file).unlink(missing_ok=True)


def code_digest() -> str:
    """Sha256 over the sources that `CODE` names: a change of the program is a change of what was measured."""
    root = Path(romexp.__file__).parent
    digest = hashlib.sha256()
    for part in CODE:
        path = root / part
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
