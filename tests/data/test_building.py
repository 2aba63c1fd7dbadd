"""Records are built from triples as Appendix D says: what holds for every set of triples, and what is left out."""

from __future__ import annotations

import csv
import itertools
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from romexp.data.building.build import make_drafts
from romexp.data.building.by_products import TextStore, zsre_records
from romexp.data.building.composition import CompositionCounter
from romexp.data.building.draws import ObjectDraw
from romexp.data.building.records import Record, Sizes
from romexp.data.building.relations import Relation, name_key, read_relations
from romexp.data.building.triples import Fact, Object, TripleStore
from romexp.errors import DataError

Triple = tuple[str, str, str]
RELATIONS = {
    "in": Relation(prompts=["{} is in", "{}, located in", "The place of {} is"], questions=["Where is {}?"]),
    "by": Relation(prompts=["{} was made by"], paraphrases=["The maker of {} is"], several=True),
}
SIZES = Sizes(least_neighbours=2)


def build(
    folder: Path,
    triples: Sequence[Triple],
    *,
    splits: Sequence[float] = (1.0,),
    seed: int = 0,
    keep: bool = True,
    **options: Any,
) -> tuple[list[tuple[int, Record]], Counter[str]]:
    """Split and record of each draft in order, and what was left out."""
    file = folder / "triples.csv"
    with file.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([("subject", "relation", "object"), *triples])
    store = TripleStore(Path(":memory:"))
    counts = store.read(file, RELATIONS, split_ends=list(itertools.accumulate(splits)), seed=seed)
    given = {"sizes": SIZES, "weights": "frequency", "sentences": ["It rained."], "seed": seed} | options
    for left in folder.glob("drafts.*"):
        left.unlink()
    drafts, dropped = make_drafts(store, RELATIONS, folder, **given)
    made = [(draft.split, draft.record) for draft in drafts if keep]
    drafts.close()
    store.close()
    del counts["triples"]
    return made, +(counts + dropped)


def world(seed: int, count: int = 60) -> list[Triple]:
    rng = random.Random(seed)
    return [
        (f"Thing{i} {rng.choice('abc')}", rng.choice(["in", "by"]), f"Place{rng.randrange(4)}") for i in range(count)
    ]


def rewrites(made: Sequence[tuple[int, Record]]) -> Iterator[tuple[Record, str, str, str, str]]:
    for _, record in made:
        rewrite = record["requested_rewrite"]
        yield (
            record,
            rewrite["subject"],
            rewrite["relation_id"],
            rewrite["target_true"]["str"],
            rewrite["target_new"]["str"],
        )


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_what_holds_for_every_set_of_triples(tmp_path: Path, seed: int) -> None:
    triples = world(seed)
    made, _ = build(tmp_path, triples, splits=(0.6, 0.4), seed=seed)
    true = {(subject, relation): target for subject, relation, target in triples}
    for record, subject, relation, old, new in rewrites(made):
        assert true[subject, relation] == old != new
        prompts = record["neighborhood_prompts"]
        assert len(prompts) == len(set(prompts)) <= 10
        for kind, target in (("neighborhood_prompts", old), ("attribute_prompts", new)):
            for prompt in record[kind]:
                (about,) = {s for s, r, _ in triples if r == relation and f"{s} " in f"{prompt} ".replace(",", " ")}
                assert true[about, relation] == target
                assert about != subject
        assert not any(new in prompt for prompt in prompts)
        assert all(text.startswith("It rained. ") and subject in text for text in record["paraphrase_prompts"])
        assert len(record["generation_prompts"]) == 10
    sides = [{text for split, r in made if split == i for text in _names(r, triples)} for i in (0, 1)]
    assert not sides[0] & sides[1]
    shuffled = random.Random(seed).sample(triples, len(triples))
    assert build(tmp_path, shuffled, splits=(0.6, 0.4), seed=seed)[0] == made


def _names(record: Record, triples: Sequence[Triple]) -> set[str]:
    """Every subject that an edit or a prompt of the record names."""
    texts = [*record["neighborhood_prompts"], *record["attribute_prompts"], record["requested_rewrite"]["subject"]]
    return {s for s, _, _ in triples for text in texts if f" {s} " in f" {text} ".replace(",", " ")}


def test_another_seed_gives_other_records(tmp_path: Path) -> None:
    assert build(tmp_path, world(1), seed=1)[0] != build(tmp_path, world(1), seed=2)[0]


def test_new_objects_are_drawn_by_frequency_or_uniformly() -> None:
    objects = [
        Object(key=k, name=k, count=n) for k, n in (("a", 60), ("b", 30), ("c", 10), ("true", 100), ("x true", 50))
    ]
    fact = Fact(relation="in", subject="S", subject_key="s", object_key="true", split=0, rank=0)
    counts, rng = Counter[str](), random.Random(0)
    for weights, shares in (("frequency", (0.6, 0.3, 0.1)), ("uniform", (1 / 3, 1 / 3, 1 / 3))):
        draw = ObjectDraw(objects=objects, weights=weights)  # type: ignore[arg-type]
        drawn = Counter(getattr(draw(fact, {"true"}, rng, counts), "name", None) for _ in range(3000))
        assert set(drawn) == {"a", "b", "c"}
        for name, share in zip("abc", shares, strict=True):
            assert drawn[name] / 3000 == pytest.approx(share, abs=0.04)
    assert counts["clashing objects drawn again"] > 0
    assert ObjectDraw(objects=objects[3:])(fact, {"true"}, rng, counts) is None


def test_contradictions_repeats_and_small_groups_are_counted(tmp_path: Path) -> None:
    good = [(f"T{i}", "in", "Rome" if i < 5 else "Oslo") for i in range(10)]
    bad = [("T0", "in", "Oslo"), ("T1", "in", "ROME"), ("the T1", "in", "Rome"), ("T2", "at", "Rome"), ("T3", "in", "")]
    made, left_out = build(tmp_path, [*good, *bad, ("T11", "in", "Bonn")])
    assert dict(left_out) == {
        "invalid": 1, "without templates": 1, "repeated": 2, "contradictions": 2, "too few neighbours": 1,
    }  # fmt: skip
    assert len(made) == 9
    assert {old for _, _, _, old, _ in rewrites(made)} == {"Rome", "Oslo"}


def test_other_names_of_an_object_are_that_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relation = Relation(prompts=["{} is in"], aliases={"Netherlands": ["Holland", "The Netherlands"]})
    monkeypatch.setitem(RELATIONS, "in", relation)
    triples = [(f"T{i}", "in", ["Holland", "Netherlands", "the netherlands"][i % 3]) for i in range(6)]
    made, left_out = build(
        tmp_path, [*triples, ("T0", "in", "Netherlands"), *((f"U{i}", "in", "Rome") for i in range(5))]
    )
    assert dict(left_out) == {"repeated": 1}
    assert {old for _, _, _, old, _ in rewrites(made)} == {"Netherlands", "Rome"}


def test_a_subject_of_several_objects_never_gets_a_true_one(tmp_path: Path) -> None:
    triples = [(f"T{i}", "by", maker) for i in range(6) for maker in ("Anna", "Bob")]
    made, _ = build(tmp_path, [*triples, *((f"U{i}", "by", "Zoe") for i in range(5))])
    assert {new for _, subject, _, _, new in rewrites(made) if subject.startswith("T")} == {"Zoe"}


def test_composition_counts_different_things(tmp_path: Path) -> None:
    made, _ = build(tmp_path, world(3))
    counter = CompositionCounter()
    for _, record in made:
        counter.add(record)
    table, records = counter.table(), [record for _, record in made]
    assert table["total"]["records"] == len(records)
    assert table["total"]["neighbours"] == len({p for r in records for p in r["neighborhood_prompts"]})
    assert table["total"]["subjects"] == len({r["requested_rewrite"]["subject"] for r in records})
    assert sum(row["records"] for row in table["relations"].values()) == len(records)
    assert table["per_record"]["paraphrases"] == pytest.approx(
        sum(len(set(r["paraphrase_prompts"])) for r in records) / len(records)
    )


def test_questions_and_reference_texts(tmp_path: Path) -> None:
    made, _ = build(tmp_path, world(4))
    records = [record for _, record in made]
    questions = list(zsre_records(records, RELATIONS, seed=0))
    assert len(questions) == sum(r["requested_rewrite"]["relation_id"] == "in" for r in records)
    assert all(question["subject"] not in question["loc"] for question in questions)
    store = TripleStore(Path(":memory:"))
    store.read(tmp_path / "triples.csv", RELATIONS, split_ends=[1.0], seed=0)
    (tmp_path / "texts.csv").write_text("title,text\nThing0 a,one\nThing0 b,two\nThing0 c,three\nNobody,four\n")
    texts = TextStore(Path(":memory:"))
    assert texts.read(tmp_path / "texts.csv") == 4
    ((subject, relation, target),) = world(4)[:1]
    (snippet,) = texts.snippets(store, {(relation, target)}, most=5)
    assert (snippet["target_id"], [sample["name"] for sample in snippet["samples"]]) == (target, [subject])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not YAML"),
        ("[]", "expected relations by their names"),
        ("a: {prompts: []}", "relation a, field prompts"),
        ("a: ['no slot']", r"relation a, field prompts\[0\]: expected exactly one {}"),
        ("a: {prompts: ['{} is'], other: 1}", "relation a, field other"),
    ],
)
def test_a_wrong_template_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_relations(tmp_path / "t.yaml")
    assert "\n" not in str(caught.value)


def test_templates_of_pararel_and_names(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("relations: {P19: ['[X] was born in [Y] .', '{} was born in']}")
    assert read_relations(tmp_path / "t.yaml")["P19"].prompts == ["{} was born in"]
    assert name_key("The Zoë-Müller!") == name_key("zoe muller")
    assert name_key("東京") == "東京"


@pytest.mark.slow
def test_a_hundred_thousand_triples_take_less_than_a_minute_of_one_core(tmp_path: Path) -> None:
    rng = random.Random(0)
    triples = [(f"Subject {i}", "in", f"Place {int(rng.paretovariate(0.7)) % 60}") for i in range(100_000)]
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made, _ = build(tmp_path, triples, keep=False)
    assert not made
    assert time.process_time() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
