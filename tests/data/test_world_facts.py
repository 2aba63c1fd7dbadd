"""The facts that ship: they are what the command builds from the triples in the repository, and well formed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from romexp.data import world
from romexp.data.building.build import make_drafts
from romexp.data.building.composition import CompositionCounter
from romexp.data.building.records import Sizes
from romexp.data.building.relations import read_relations
from romexp.data.building.triples import TripleStore
from romexp.data.counterfact import CounterFact
from romexp.data.facts_file import FactsFile
from romexp.data.known import KnownFacts
from romexp.data.zsre import ZsRE


def test_the_records_are_built_from_the_triples(tmp_path: Path) -> None:
    folder, store = world.world_dir(), TripleStore(Path(":memory:"))
    relations = read_relations(folder / world.TEMPLATES)
    store.read(folder / world.TRIPLES, relations, split_ends=[1.0], seed=0)
    sentences = (folder / world.SENTENCES).read_text(encoding="utf-8").splitlines()
    drafts, _ = make_drafts(
        store, relations, tmp_path, sizes=Sizes(least_neighbours=6), weights="frequency", sentences=sentences, seed=0
    )
    built = [{"case_id": i, "pararel_idx": i} | draft.record for i, draft in enumerate(drafts)]
    assert json.loads(gzip.decompress(world.records_path().read_bytes())) == built


def test_its_composition() -> None:
    records = json.loads(gzip.decompress(world.records_path().read_bytes()))
    counter = CompositionCounter()
    for record in records:
        counter.add(record)
    table = counter.table()
    assert table["total"] == {
        "records": 1490, "subjects": 1381, "objects": 110, "statements": 1490, "paraphrases": 2980,
        "neighbours": 4377, "attributes": 4352, "generations": 4413,
    }  # fmt: skip
    assert len(table["relations"]) == 16
    assert all(len(record["neighborhood_prompts"]) == 10 for record in records)
    assert sum(file.stat().st_size for file in world.world_dir().iterdir() if file.is_file()) < 2e6


def test_every_reader_takes_it() -> None:
    strict, lenient = (data(path=world.records_path(), limit=50).load() for data in (CounterFact, FactsFile))
    assert strict.items == lenient.items
    assert not strict.rejected
    assert not ZsRE(path=world.questions_path()).load().rejected
    known = KnownFacts(path=world.known_path()).load()
    assert not known.rejected
    assert len(known.items) == 430
