"""Triples (subject, relation, object) in a database on disk, so that memory does not grow with their number."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romexp.data.building.relations import Relation, name_key
from romexp.data.layouts import Part
from romexp.data.record_stream import stream_records
from romexp.data.schema import shown
from romexp.errors import DataError

NAMES: Mapping[str, tuple[str, ...]] = {
    "subject": ("subject", "sub_label", "subj", "s", "head"),
    "relation": ("relation", "relation_id", "predicate", "predicate_id", "property", "p", "r"),
    "object": ("object", "obj_label", "obj", "o", "tail"),
}
"""The usual names of the three parts."""

_TABLES = """
CREATE TABLE raw (relation TEXT, subject_key TEXT, object_key TEXT, subject TEXT, object TEXT, split INTEGER,
    PRIMARY KEY (relation, subject_key, object_key)) WITHOUT ROWID;
"""
_CONTRADICTIONS = """
DELETE FROM raw WHERE relation = ? AND subject_key IN
    (SELECT subject_key FROM raw WHERE relation = ? GROUP BY subject_key HAVING count(*) > 1)
"""
# The rank of a subject among those with the same object does not depend on the order of the file.
_FACTS = """
CREATE TABLE facts (relation TEXT, object_key TEXT, split INTEGER, rank INTEGER, subject TEXT, subject_key TEXT,
    PRIMARY KEY (relation, object_key, split, rank)) WITHOUT ROWID;
INSERT INTO facts SELECT relation, object_key, split,
    row_number() OVER (PARTITION BY relation, object_key, split ORDER BY subject_key) - 1, subject, subject_key
    FROM raw;
CREATE INDEX by_subject ON facts (relation, subject_key);
CREATE TABLE objects (relation TEXT, object_key TEXT, object TEXT, count INTEGER,
    PRIMARY KEY (relation, object_key)) WITHOUT ROWID;
INSERT INTO objects SELECT relation, object_key, object, total FROM (
    SELECT relation, object_key, object, sum(count(*)) OVER (PARTITION BY relation, object_key) AS total,
        row_number() OVER (PARTITION BY relation, object_key ORDER BY count(*) DESC, object) AS place
    FROM raw GROUP BY relation, object_key, object) WHERE place = 1;
DROP TABLE raw;
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A true fact. Keys are `name_key`s; `rank` is its place among the facts with the same object in its split."""

    relation: str
    subject: str
    subject_key: str
    object_key: str
    split: int
    rank: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Object:
    """An object of a relation, and how many facts have it."""

    key: str
    name: str
    count: int


class TripleStore:
    """Facts on disk: all of a relation, and the subjects that share an object."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;")
        self._db.executescript(_TABLES)

    def read(
        self, path: Path, relations: Mapping[str, Relation], *, split_ends: Sequence[float], seed: int
    ) -> Counter[str]:
        """Read the triples of a file; return how many there are, and how many were left out, by reason.

        Args:
            split_ends: cumulative shares of the splits, ending in 1. All triples of a subject are in one split.

        Raises:
            DataError: the file cannot be read, or not one of its triples can be used.
        """
        counts: Counter[str] = Counter()
        first_fault = ""

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal first_fault
            for index, record in enumerate(stream_records(path)):
                counts["triples"] += 1
                parts = _parts(record)
                if isinstance(parts, str):
                    counts["invalid"] += 1
                    first_fault = first_fault or f"record {index}: {parts}"
                    continue
                subject, relation, target = parts
                if relation not in relations:
                    counts["without templates"] += 1
                    first_fault = first_fault or f"record {index}: no templates for relation {shown(relation)}"
                    continue
                target = relations[relation].object_names.get(name_key(target), target)
                key = name_key(subject)
                yield relation, key, name_key(target), subject, target, _split(key, split_ends, seed)

        self._db.execute("BEGIN")
        before = self._db.total_changes
        # The spelling that is kept is the first in the alphabet, whatever comes first in the file.
        self._db.executemany(
            "INSERT INTO raw VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " subject = min(subject, excluded.subject), object = min(object, excluded.object)",
            rows(),
        )
        if self._db.total_changes == before:
            raise DataError(f"{path}: none of {counts['triples']} triples can be used; {first_fault or 'it is empty'}")
        (kept,) = self._db.execute("SELECT count(*) FROM raw").fetchone()
        counts["repeated"] = counts["triples"] - counts["invalid"] - counts["without templates"] - kept
        for name, relation in relations.items():
            if not relation.several:
                counts["contradictions"] += self._db.execute(_CONTRADICTIONS, (name, name)).rowcount
        self._db.execute("COMMIT")
        self._db.executescript(_FACTS)
        return counts

    def objects(self, relation: str) -> list[Object]:
        """The objects of a relation, sorted by key."""
        rows = self._db.execute(
            "SELECT object_key, object, count FROM objects WHERE relation = ? ORDER BY object_key", (relation,)
        )
        return [Object(key=key, name=name, count=count) for key, name, count in rows]

    def facts(self, relation: str) -> Iterator[Fact]:
        """The facts of a relation, in an order that does not depend on the file."""
        rows = self._db.execute(
            "SELECT subject, subject_key, object_key, split, rank FROM facts WHERE relation = ?"
            " ORDER BY object_key, split, rank",
            (relation,),
        )
        for subject, subject_key, object_key, split, rank in rows:
            yield Fact(
                relation=relation,
                subject=subject,
                subject_key=subject_key,
                object_key=object_key,
                split=split,
                rank=rank,
            )

    def true_objects(self, relation: str, subject_key: str) -> set[str]:
        """The keys of all objects of a subject."""
        rows = self._db.execute(
            "SELECT object_key FROM facts WHERE relation = ? AND subject_key = ?", (relation, subject_key)
        )
        return {key for (key,) in rows}

    def group_size(self, relation: str, object_key: str, split: int) -> int:
        """How many subjects of a split have an object."""
        row = self._db.execute(
            "SELECT max(rank) + 1 FROM facts WHERE relation = ? AND object_key = ? AND split = ?",
            (relation, object_key, split),
        ).fetchone()
        return int(row[0] or 0)

    def subjects(self, relation: str, object_key: str, split: int, ranks: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Name and key of the subjects with these ranks."""
        rows = self._db.execute(
            "SELECT rank, subject, subject_key FROM facts WHERE relation = ? AND object_key = ? AND split = ?"
            f" AND rank IN ({','.join('?' * len(ranks))})",
            (relation, object_key, split, *ranks),
        )
        return {rank: (subject, key) for rank, subject, key in rows}

    def subject_keys_with(self, relation: str, object_key: str) -> Iterator[str]:
        """The keys of all subjects that have an object."""
        rows = self._db.execute(
            "SELECT subject_key FROM facts WHERE relation = ? AND object_key = ? ORDER BY subject_key",
            (relation, object_key),
        )
        return (key for (key,) in rows.fetchall())

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _parts(record: Any) -> tuple[str, str, str] | str:
    """Subject, relation and object; or what is wrong."""
    if isinstance(record, list) and len(record) == 3:
        record = dict(zip(NAMES, record, strict=True))
    if not isinstance(record, Mapping):
        return f"expected subject, relation and object, not {shown(record)}"
    named = {str(key).strip().lower(): Part(name=str(key), value=value) for key, value in record.items()}
    found = []
    for part, names in NAMES.items():
        value = next((named[name].value for name in names if name in named), None)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            value = str(int(value)) if float(value).is_integer() else str(value)
        if not isinstance(value, str) or not value.strip() or "{}" in value:
            return f"field {part}: expected some text, not {shown(value)}"
        found.append(" ".join(value.split()))
    subject, relation, target = found
    return subject, relation, target


def _split(subject_key: str, ends: Sequence[float], seed: int) -> int:
    if len(ends) == 1:
        return 0
    digest = hashlib.blake2b(f"{seed} split {subject_key}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    return next((i for i, end in enumerate(ends) if place < end), len(ends) - 1)
