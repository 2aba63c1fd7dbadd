"""The composition of a data set, as in the paper's Table 2: how many different things of each kind it holds."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np

from romexp.data.building.records import Record
from romexp.facts import fill, with_answer

ROWS: Mapping[str, str] = {
    "records": "Records",
    "subjects": "Subjects",
    "objects": "Objects",
    "statements": "Counterfactual statements",
    "paraphrases": "Paraphrase prompts",
    "neighbours": "Neighborhood prompts",
    "attributes": "Attribute prompts",
    "generations": "Generation prompts",
}
"""The rows of the table, by what is counted."""


class CompositionCounter:
    """Counts records as they come. It keeps eight bytes for each text, and none of the texts."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], array[int]] = defaultdict(lambda: array("Q"))
        self._records: dict[str, int] = defaultdict(int)
        self._distinct: dict[str, int] = defaultdict(int)

    def add(self, record: Record) -> None:
        """Count one record."""
        relation = record["requested_rewrite"]["relation_id"]
        self._records[relation] += 1
        for kind, texts in _texts(record):
            distinct = {_digest(text) for text in texts}
            self._seen[kind, relation].extend(distinct)
            self._distinct[kind] += len(distinct)

    def table(self) -> dict[str, Any]:
        """`total`, `per_record` and `relations`, each with the counts of `ROWS`; all are counts of different things.

        `per_relation` is the mean over relations.
        """
        total_records = sum(self._records.values())
        relations = {
            name: {"records": count} | {kind: self._count(kind, [name]) for kind in ROWS if kind != "records"}
            for name, count in sorted(self._records.items())
        }
        total = {kind: self._count(kind, relations) if kind != "records" else total_records for kind in ROWS}
        per_relation = {kind: sum(row[kind] for row in relations.values()) / max(len(relations), 1) for kind in ROWS}
        per_record = {kind: self._distinct[kind] / max(total_records, 1) for kind in ROWS if kind in PROMPTS}
        return {"total": total, "per_relation": per_relation, "per_record": per_record, "relations": relations}

    def _count(self, kind: str, relations: Iterable[str]) -> int:
        parts = [np.frombuffer(self._seen[kind, name], dtype=np.uint64) for name in relations]
        return int(np.unique(np.concatenate(parts)).size) if parts else 0


PROMPTS = {
    "paraphrases": "paraphrase_prompts",
    "neighbours": "neighborhood_prompts",
    "attributes": "attribute_prompts",
    "generations": "generation_prompts",
}


def _texts(record: Record) -> Iterator[tuple[str, list[str]]]:
    rewrite = record["requested_rewrite"]
    new, true = rewrite["target_new"]["str"], rewrite["target_true"]["str"]
    yield "subjects", [rewrite["subject"]]
    yield "objects", [new, true]
    yield "statements", [with_answer(fill(rewrite["prompt"], rewrite["subject"]), new)]
    for kind, field in PROMPTS.items():
        yield kind, record[field]


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
