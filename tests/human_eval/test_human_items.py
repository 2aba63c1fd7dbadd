"""What a human evaluation asks: balanced, seeded, blind."""

from __future__ import annotations

from collections import Counter

import pytest
from human_cases import SYSTEMS, questionnaire

from romexp.errors import DataError
from romexp.human_eval.questionnaire import draw


def test_the_seed_decides_and_nothing_else() -> None:
    assert questionnaire(seed=3) == questionnaire(seed=3)
    assert questionnaire(seed=3).digest == questionnaire(seed=3).digest
    others = {questionnaire(seed=seed).digest for seed in range(5)}
    assert len(others) == 5


def test_every_text_is_that_of_the_system_in_the_key() -> None:
    drawn = questionnaire()
    assert len({item.case_id for item in drawn.items}) == len(drawn.items) == 12
    for item in drawn.items:
        written = [SYSTEMS[int(text[text.index("word") + 4])] for text in item.texts]
        assert written == list(item.order)
        assert len({text[: text.index("<")] for text in item.texts}) == 1, "all about one prompt"
        assert f"Subject {item.case_id} " in item.statement


def test_places_are_balanced_over_cases() -> None:
    for cases in (12, 20):
        at = Counter(
            (place, system) for item in questionnaire(cases=cases).items for place, system in enumerate(item.order)
        )
        assert max(at.values()) - min(at.values()) <= 1
    orders = {item.order for item in questionnaire(cases=20).items}
    assert len(orders) > 3, "not one rotation over and over"


def test_every_case_is_judged_equally_often() -> None:
    drawn = questionnaire(cases=12, participants=6, per_participant=4)
    assert {len(set(mine)) for mine in drawn.plan} == {4}
    assert set(Counter(number for mine in drawn.plan for number in mine).values()) == {2}
    odd = questionnaire(cases=7, participants=5, per_participant=3)
    counts = Counter(number for mine in odd.plan for number in mine)
    assert sorted(counts.values()) == [2] * 6 + [3]
    whole = questionnaire(cases=7, participants=2, per_participant=None)
    assert [sorted(mine) for mine in whole.plan] == [list(range(1, 8))] * 2
    assert whole.plan[0] != whole.plan[1]


def test_the_papers_numbers() -> None:
    texts = {system: {case: [f"{system} {case}"] for case in range(60)} for system in SYSTEMS}
    drawn = draw(texts, dict.fromkeys(range(60), "s"), cases=50, participants=15, per_participant=10, seed=0)
    counts = Counter(number for mine in drawn.plan for number in mine)
    assert (len(counts), set(counts.values()), counts.total()) == (50, {3}, 150)


def test_equal_texts_cannot_be_ranked() -> None:
    texts = {
        "a": {1: ["same", "one"], 2: ["same"], 3: ["x"], 4: ["only here"]},
        "b": {1: ["same", "two"], 2: ["same"], 3: [""]},
    }
    drawn = draw(texts, dict.fromkeys(range(5), "s"), cases=9, participants=1, per_participant=None, seed=0)
    (item,) = drawn.items
    assert (item.case_id, set(item.texts)) == (1, {"one", "two"})
    assert drawn.left_out == 2
    with pytest.raises(DataError, match="not one of 1 common cases has texts of a, b that all differ"):
        draw({"a": {1: ["x"]}, "b": {1: ["x"]}}, {1: "s"}, cases=1, participants=1, per_participant=None, seed=0)
