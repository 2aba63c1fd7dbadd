"""Metrics before the edit do not depend on the editor: computed once, shared by all runs (DESIGN §1.3)."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

import romexp
from romexp.errors import ConfigError
from romexp.facts import Case

Measurements = dict[str, Any]

CODE = ("lm", "evaluation", "seeds.py")
"""Parts of the package whose code decides what is measured on an unedited model."""

MOST_CLAIMS = 100
"""Of one process: each is an open file, of which systems allow as few as 256."""


@dataclass(frozen=True, kw_only=True)
class UneditedCache:
    """Evaluators' rows of the unedited model, in one SQLite file that any number of processes may use.

    So that jobs which start together do not all measure the same cases, a process claims those that it is about to
    measure by a file lock each. The locks of a killed process are free at once. Of a very large batch only the first
    cases are claimed; then the others may be measured twice.

    Attributes:
        path: the file; made when first written.
        context: all that a row depends on besides the case: model, evaluator, references, seed, code. JSON-ready.
    """

    path: Path
    context: Mapping[str, Any]

    def get(self, cases: Iterable[Case]) -> dict[int, Measurements]:
        """Rows that are there, by case id."""
        found: dict[int, Measurements] = {}
        if not self.path.exists():
            return found
        with self._connection() as connection:
            for case in cases:
                row = connection.execute("SELECT value FROM rows WHERE key = ?", (self.key(case),)).fetchone()
                if row is not None:
                    found[case.case_id] = json.loads(zlib.decompress(row[0]))
        return found

    def put(self, cases: Sequence[Case], rows: Sequence[Measurements]) -> None:
        """Keep rows, one a case; a row that another process kept meanwhile stays."""
        values = [
            (self.key(case), zlib.compress(json.dumps(row).encode())) for case, row in zip(cases, rows, strict=True)
        ]
        with self._connection() as connection:
            connection.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?)", values)

    @contextmanager
    def claimed(self, cases: Iterable[Case]) -> Iterator[list[Case]]:
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
    def awaited(self, cases: Iterable[Case]) -> Iterator[None]:
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
