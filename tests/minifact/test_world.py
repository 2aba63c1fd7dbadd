"""The world and its data sets: drawn from a seed, in the public schemas, consistent with the facts."""

from __future__ import annotations

import itertools
import random

import pytest

from romexp.facts import fill
from romexp.minifact.corpus import CorpusMix, CorpusWriter, text_of
from romexp.minifact.prompts import unrelated_sentence
from romexp.minifact.records import Record, counterfact_records, known_records, zsre_records
from romexp.minifact.relations import RELATIONS
from romexp.minifact.snippets import attribute_snippets, tfidf_statistics
from romexp.minifact.world import World, WorldMaker


@pytest.fixture(scope="module")
def world() -> World:
    return WorldMaker()()


def test_a_seed_fixes_the_world(world: World) -> None:
    assert WorldMaker()() == world
    assert WorldMaker(seed=1)() != world


def test_size_of_the_world(world: World) -> None:
    assert len(world.by_entity) >= 900
    assert len({fact.relation.relation_id for fact in world.told}) >= 8
    assert all(5 <= len(relation.templates) <= 6 for relation in RELATIONS)
    assert all(8 <= len(relation.objects) <= 16 for relation in RELATIONS)
    assert len(world.told) + len(world.untold) == len(world.statements)


def test_no_part_of_a_name_tells_a_fact(world: World) -> None:
    """Each name part is shared by subjects of several objects in every relation."""
    objects: dict[tuple[str, str], set[str]] = {}
    for fact in world.told:
        for part in fact.entity.name.split():
            objects.setdefault((part, fact.relation.relation_id), set()).add(fact.object)
    several = [len(found) > 1 for found in objects.values()]
    assert sum(several) / len(several) > 0.9


def test_no_name_contains_another(world: World) -> None:
    names = [entity.name for entity in world.by_entity]
    text = "\n".join(names)
    assert all(text.count(name) == 1 for name in names)


def test_templates_have_one_place_for_the_subject() -> None:
    for relation in RELATIONS:
        wordings = (*relation.templates, relation.question, relation.rephrase, relation.nq_question)
        assert all(wording.count("{}") == 1 and not wording.endswith(" ") for wording in wordings)


def test_the_corpus_never_tells_a_withheld_fact(world: World) -> None:
    written = text_of([piece for doc in itertools.islice(CorpusWriter(world, CorpusMix(), "t"), 3000) for piece in doc])
    for fact in world.untold:
        for template in fact.relation.templates:
            assert f"{fill(template, fact.entity.name)} {fact.object}" not in written


def test_biographies_are_worded_anew(world: World) -> None:
    writer = CorpusWriter(world, CorpusMix(error=0.0), "t")
    entity = next(iter(world.by_entity))
    texts = [text_of(writer.biography(entity)) for _ in range(20)]
    assert len(set(texts)) == 20
    assert all(fact.object in text for text in texts for fact in world.by_entity[entity])
    assert sum(text.count(entity.name) for text in texts) < 20 * 3


@pytest.fixture(scope="module")
def counterfact(world: World) -> list[Record]:
    return counterfact_records(world, 1000, seed=0)


def test_counterfact_is_fixed_by_its_seed(world: World, counterfact: list[Record]) -> None:
    assert counterfact_records(world, 1000, seed=0) == counterfact
    assert counterfact_records(world, 1000, seed=1) != counterfact


def test_counterfact_schema(counterfact: list[Record]) -> None:
    assert [record["case_id"] for record in counterfact] == list(range(1000))
    for record in counterfact:
        request = record["requested_rewrite"]
        assert set(request) == {"prompt", "relation_id", "target_new", "target_true", "subject"}
        assert request["prompt"].count("{}") == 1
        assert request["target_new"]["str"] != request["target_true"]["str"]
        assert len(record["paraphrase_prompts"]) == 2
        assert all(len(record[f"{kind}_prompts"]) == 10 for kind in ("neighborhood", "attribute", "generation"))
        assert len(set(record["generation_prompts"])) <= 3
        own = record["paraphrase_prompts"] + record["generation_prompts"]
        assert all(prompt.count(request["subject"]) == 1 and not prompt.endswith(" ") for prompt in own)


def test_paraphrases_follow_an_unrelated_sentence_and_avoid_the_rewrite(counterfact: list[Record]) -> None:
    for record in counterfact:
        request = record["requested_rewrite"]
        for paraphrase in record["paraphrase_prompts"]:
            sentence, rest = paraphrase.split(". ", 1)
            assert request["subject"] not in sentence
            assert request["subject"] in rest
            assert rest != fill(request["prompt"], request["subject"])


def test_neighbours_share_the_object_and_attributes_the_new_one(world: World, counterfact: list[Record]) -> None:
    truth = {
        (fill(template, fact.entity.name), fact.relation.relation_id): fact.object
        for fact in world.told
        for template in fact.relation.templates
    }
    for record in counterfact:
        request = record["requested_rewrite"]
        for kind, target in (("neighborhood", "target_true"), ("attribute", "target_new")):
            prompts = record[f"{kind}_prompts"]
            assert len(set(prompts)) == 10
            assert {truth[prompt, request["relation_id"]] for prompt in prompts} == {request[target]["str"]}
            assert all(request["subject"] not in prompt for prompt in prompts)


def test_zsre_schema(world: World) -> None:
    rows = zsre_records(world, 500, seed=0)
    keys = {"subject", "src", "pred", "rephrase", "alt", "answers", "loc", "loc_ans", "cond"}
    untold = {(fact.entity.name, fact.object) for fact in world.untold}
    for row in rows:
        assert set(row) == keys
        assert row["src"].count(row["subject"]) == 1
        assert f" {row['subject']}" in row["src"]
        assert row["subject"] in row["rephrase"]
        assert row["src"] != row["rephrase"]
        assert row["loc"].startswith("nq question: ")
        assert row["subject"] not in row["loc"]
        assert row["alt"] != row["answers"][0]
    assert sum((row["subject"], row["answers"][0]) in untold for row in rows) >= len(world.untold)


def test_known_facts_leave_words_after_the_subject(world: World) -> None:
    rows = known_records(world, 600, seed=0)
    assert [row["known_id"] for row in rows] == list(range(600))
    for row in rows:
        assert set(row) == {"known_id", "subject", "attribute", "template", "prediction", "prompt", "relation_id"}
        whole = row["template"].format(row["subject"]) + row["prediction"]
        assert whole.startswith(f"{row['prompt']} {row['attribute']}")
        assert len(row["prompt"].split(row["subject"])[1].split()) >= 2
    assert len({row["prompt"] for row in rows}) == 600


def test_snippets_tell_their_object(world: World) -> None:
    snippets = attribute_snippets(world, 3, seed=0)
    assert len(snippets) == sum(len(relation.objects) for relation in RELATIONS)
    for snippet in snippets:
        for sample in snippet["samples"]:
            assert snippet["target_id"] in sample["text"]
            assert sample["name"] in sample["text"]
    idf, vocabulary = tfidf_statistics(snippets)
    assert sorted(vocabulary.values()) == list(range(len(idf)))


def test_unrelated_sentences_are_about_others(world: World) -> None:
    name = next(iter(world.by_entity)).name
    rng = random.Random(0)
    assert all(name not in unrelated_sentence(world, name, rng) for _ in range(50))
