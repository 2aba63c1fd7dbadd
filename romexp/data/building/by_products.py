"""What is written beside the records: questions in zsRE's form, and reference texts for RS by subject."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from romexp.data.building.records import Record
from romexp.data.building.relations import Relation, name_key
from romexp.data.building.triples import TripleStore
from romexp.data.record_stream import stream_records
from romexp.errors import DataError
from romexp.facts import fill
from romexp.seeds import derive_seed

_NAMES = {"subject": ("subject", "name", "title", "entity"), "text": ("text", "content", "article")}


def zsre_records(records: Iterable[Record], relations: Mapping[str, Relation], *, seed: int) -> Iterator[Record]:
    """A question with its true answer about each record whose relation has question templates, in zsRE's form.

    The locality question is about the record before, or for the first records about the next one of another subject.
    """
    waiting: list[tuple[Record, Record]] = []
    before: tuple[str, str, str] | None = None
    for record in records:
        rewrite = record["requested_rewrite"]
        relation, subject = relations[rewrite["relation_id"]], rewrite["subject"]
        if not relation.questions:
            continue
        rng = Random(derive_seed(seed, rewrite["relation_id"], name_key(subject), "questions"))
        chosen = rng.sample(relation.questions, min(2, len(relation.questions)))
        own = fill(rng.choice(relation.questions), subject), rewrite["target_true"]["str"], name_key(subject)
        question = _question(rewrite, fill(chosen[0], subject), fill(chosen[-1], subject))
        if before is None or before[2] == own[2]:
            waiting.append((question, rewrite))
        else:
            yield question | _locality(before)
        ready = [each for each, of in waiting if name_key(of["subject"]) != own[2]]
        yield from (each | _locality(own) for each in ready)
        waiting = [(each, of) for each, of in waiting if name_key(of["subject"]) == own[2]]
        before = own


def _question(rewrite: Mapping[str, Any], question: str, rephrase: str) -> Record:
    true, new = rewrite["target_true"]["str"], rewrite["target_new"]["str"]
    return {
        "subject": rewrite["subject"],
        "src": question,
        "pred": true,
        "rephrase": rephrase,
        "alt": new,
        "answers": [true],
        "cond": f"{true} >> {new} || {question}",
    }


def _locality(other: tuple[str, str, str]) -> Record:
    question, answer, _ = other
    return {"loc": "nq question: " + question[:1].lower() + question[1:].rstrip("?"), "loc_ans": answer}


class TextStore:
    """Texts about subjects on disk."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE texts (subject_key TEXT, name TEXT, text TEXT, PRIMARY KEY (subject_key, text));"
        )

    def read(self, path: Path) -> int:
        """Read records with a subject and a text; return how many there are.

        Raises:
            DataError: the file cannot be read, or not one record has both.
        """
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", _texts(path))
        self._db.execute("COMMIT")
        (count,) = self._db.execute("SELECT count(*) FROM texts").fetchone()
        if not count:
            raise DataError(f"{path}: expected records with a subject and a text, found none")
        return int(count)

    def snippets(self, store: TripleStore, targets: Collection[tuple[str, str]], *, most: int) -> Iterator[Record]:
        """For each (relation, object), texts about subjects of which it is true, as in `attribute_snippets.json`."""
        for relation, target in sorted(targets):
            samples: list[Record] = []
            for subject_key in store.subject_keys_with(relation, name_key(target)):
                rows = self._db.execute(
                    "SELECT name, text FROM texts WHERE subject_key = ? ORDER BY text LIMIT ?",
                    (subject_key, most - len(samples)),
                )
                samples += [{"name": name, "text": text} for name, text in rows]
                if len(samples) >= most:
                    break
            if samples:
                yield {"relation_id": relation, "target_id": target, "samples": samples}

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _texts(path: Path) -> Iterator[tuple[str, str, str]]:
    for record in stream_records(path):
        if isinstance(record, Mapping):
            subject, text = (next((record[n] for n in names if n in record), None) for names in _NAMES.values())
            if isinstance(subject, str) and isinstance(text, str) and subject.strip() and text.strip():
                yield name_key(subject), subject.strip(), text
