"""Which cases a sequence edits: as many as asked for, in a seeded order, without contradictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from romexp.data.conflicts import choose
from romexp.errors import ConfigError
from romexp.facts import Case, EditRequest


def case(number: int, subject: str, target: str, *, relation: str = "P1", prompt: str = "{} is") -> Case:
    request = EditRequest(subject=subject, prompt=prompt, target_new=target, relation_id=relation)
    return Case(case_id=number, request=request)


PLAIN = [case(i, f"S{i}", "x") for i in range(20)]
AGAINST = [
    case(0, "Anna", "Rome"),
    case(1, "Bob", "Rome"),
    case(2, "Anna ", "Oslo", prompt="{} was in"),  # the same relation in other words
    case(3, "Anna", " Rome"),  # the same again
    case(4, "Anna", "Oslo", relation="P2"),
    case(5, "Anna", "Oslo", relation=""),
    case(6, "Anna", "Bonn", relation=""),  # without a relation, the same prompt
    case(7, "Anna", "Bonn", relation="", prompt="{} sees"),
]


def ids(cases: Sequence[Case], **changes: Any) -> list[int]:
    settings: dict[str, Any] = {"edits": None, "order": "file", "contradictions": "first", "seed": 0, **changes}
    return [each.case_id for each in choose(cases, **settings).cases]


def test_the_order_is_seeded() -> None:
    assert ids(PLAIN) == list(range(20))
    one, again, other = (ids(PLAIN, order="shuffled", seed=seed) for seed in (0, 0, 1))
    assert one == again != other
    assert sorted(one) == sorted(other) == list(range(20))
    assert ids(PLAIN, order="shuffled", edits=5) == one[:5]  # so a longer run begins as a shorter one


def test_contradictions_are_found() -> None:
    chosen = choose(AGAINST, edits=None, order="file", contradictions="first", seed=0)
    assert [each.case_id for each in chosen.cases] == [0, 1, 3, 4, 5, 7]
    assert [(each.case.case_id, each.earlier.case_id) for each in chosen.contradictions] == [(2, 0), (6, 5)]
    assert "asks for 'Oslo' where case 0 asks for 'Rome' (Anna , P1)" in chosen.contradictions[0].reason
    assert ids(AGAINST, contradictions="keep") == list(range(8))
    assert ids(AGAINST, edits=3) == [0, 1, 3]
    with pytest.raises(ConfigError, match=r"task\.contradictions: case 2 asks for 'Oslo' where case 0"):
        ids(AGAINST, contradictions="refuse")
    assert ids(AGAINST[:2], contradictions="refuse") == [0, 1]


def test_there_must_be_enough() -> None:
    with pytest.raises(ConfigError, match=r"task\.edits: 7 are wanted, but .* has 6 cases, 2 more contradict"):
        ids(AGAINST, edits=7)
    with pytest.raises(ConfigError, match=r"task\.edits: 21 are wanted, but the data set has 20 cases$"):
        ids(PLAIN, edits=21)
