"""Records that were made and may still be dropped. They are on disk, so that memory does not grow with their number."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from romexp.data.building.records import Record

_TABLE = """
CREATE TABLE drafts (id INTEGER PRIMARY KEY, place INTEGER, split INTEGER, relation TEXT, start INTEGER,
    length INTEGER);
"""
_SELECT = "SELECT id, split, start, length FROM drafts"


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A record, the split that it is in, and its number among all drafts."""

    id: int
    split: int
    record: Record


class Drafts:
    """Drafts in two files of a folder: the records, and where each begins."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "drafts.sqlite", isolation_level=None)
        self._db.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLE}")
        self._db.execute("BEGIN")
        self._file = (folder / "drafts.jsonl").open("w+b")
        self._end = 0

    def add(self, place: int, split: int, record: Record) -> None:
        """Add a record.

        Args:
            place: records are read in the order of these numbers.
        """
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self._db.execute(
            "INSERT INTO drafts (place, split, relation, start, length) VALUES (?, ?, ?, ?, ?)",
            (place, split, record["requested_rewrite"]["relation_id"], self._end, len(line)),
        )
        self._file.write(line)
        self._end += len(line)

    def finish(self) -> None:
        """No more are added; from now on they can be read."""
        self._file.flush()
        self._db.execute("COMMIT")
        self._db.execute("CREATE INDEX in_order ON drafts (split, place, id)")

    def drop(self, ids: Iterable[int]) -> None:
        """Drop some drafts."""
        self._db.execute("BEGIN")
        self._db.executemany("DELETE FROM drafts WHERE id = ?", ((number,) for number in ids))
        self._db.execute("COMMIT")

    def keep_at_most(self, per_relation: int) -> int:
        """Keep the first drafts of each relation and split, and return how many were dropped."""
        return self._db.execute(
            "DELETE FROM drafts WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER"
            " (PARTITION BY split, relation ORDER BY place, id) AS number FROM drafts) WHERE number > ?)",
            (per_relation,),
        ).rowcount

    def smallest_relation(self) -> int:
        """The number of drafts of the relation and split that has fewest."""
        row = self._db.execute(
            "SELECT min(n) FROM (SELECT count(*) AS n FROM drafts GROUP BY split, relation)"
        ).fetchone()
        return int(row[0] or 0)

    def count(self) -> int:
        """How many drafts there are."""
        return int(self._db.execute("SELECT count(*) FROM drafts").fetchone()[0])

    def __iter__(self) -> Iterator[Draft]:
        """All drafts, split by split in their order."""
        yield from self._read(self._db.execute(f"{_SELECT} ORDER BY split, place, id"))

    def of_split(self, split: int) -> Iterator[Draft]:
        """The drafts of a split, in their order."""
        yield from self._read(self._db.execute(f"{_SELECT} WHERE split = ? ORDER BY place, id", (split,)))

    def _read(self, rows: Iterable[tuple[int, int, int, int]]) -> Iterator[Draft]:
        for number, split, start, length in rows:
            self._file.seek(start)
            record = json.loads(self._file.read(length).decode("utf-8", "surrogatepass"))
            yield Draft(id=number, split=split, record=record)

    def close(self) -> None:
        """Close both files."""
        self._db.close()
        self._file.close()
