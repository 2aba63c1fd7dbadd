"""Edits that networks for minifact learn from: true about the world, and silent about what is evaluated."""

from __future__ import annotations

import json

import pytest

from romexp.data.counterfact import CounterFact
from romexp.data.zsre import ZsRE
from romexp.errors import ConfigError, DataError
from romexp.facts import Case
from romexp.minifact import assets
from romexp.minifact.training_edits import WorldEdits
from romexp.minifact.world import World, WorldMaker

HELD_OUT = {
    "held_out": CounterFact(path=assets.counterfact_path(), limit=200),
    "held_out_questions": ZsRE(path=assets.zsre_path(), limit=100),
}


@pytest.fixture(scope="module")
def world() -> World:
    return WorldMaker()()


@pytest.fixture(scope="module")
def cases() -> tuple[Case, ...]:
    return WorldEdits(**HELD_OUT, limit=1500).load().items


def test_no_held_out_subject_is_named_anywhere(cases: tuple[Case, ...]) -> None:
    closed = {case.request.subject for dataset in HELD_OUT.values() for case in dataset.load().items}
    assert len(closed) == 261
    for case in cases:
        texts = (*case.paraphrase_prompts, *case.neighborhood_prompts, *case.attribute_prompts)
        assert case.request.subject not in closed
        assert not [name for name in closed for text in texts if name in text]
    open_to_all = {case.request.subject for case in WorldEdits(limit=1500).load().items}
    assert closed & open_to_all, "the control: without the list they come"


def test_edits_are_counterfactual(cases: tuple[Case, ...], world: World) -> None:
    true = {(s.entity.name, s.relation.relation_id): s.object for s in world.told}
    for case in cases:
        request = case.request
        assert true[request.subject, request.relation_id] == request.target_true != request.target_new
    assert [case.case_id for case in cases] == list(range(1500))


def test_every_fact_comes_before_one_comes_again(cases: tuple[Case, ...]) -> None:
    facts = [(case.request.subject, case.request.relation_id) for case in cases if not asks(case)]
    assert len(set(facts)) == len(facts)


def asks(case: Case) -> bool:
    return case.request.prompt.endswith("?")


def test_a_share_are_questions(cases: tuple[Case, ...]) -> None:
    questions = [case for case in cases if asks(case)]
    assert len(questions) == 300
    assert all(len(q.neighborhood_targets) == len(q.neighborhood_prompts) == 1 for q in questions)


def test_the_seed_decides() -> None:
    one, same, other = (WorldEdits(**HELD_OUT, limit=50, seed=seed).load() for seed in (0, 0, 1))
    assert one == same
    assert one.sha256 != other.sha256


def test_nothing_left_is_an_error() -> None:
    small = WorldMaker(people=5, buildings=0, devices=0)
    everyone = WorldEdits(world=small, limit=200, questions=0.0)
    with pytest.raises(DataError, match="no subject"):
        WorldEdits(world=small, held_out=everyone).load()
    with pytest.raises(ConfigError, match="limit"):
        WorldEdits(limit=0)


@pytest.mark.parametrize("path", [assets.mend_path(), assets.ke_path()], ids=lambda path: path.stem)
def test_shipped_networks_are_small_and_name_their_making(path) -> None:  # type: ignore[no-untyped-def]
    from romexp.editors.learned.checkpoint import read

    assert path.stat().st_size < 1.6e6
    training = read(path)[0]["training"]
    assert training["command"].startswith("romexp task=train")
    assert json.dumps(training)
