"""`romexp.edit` with a list of facts: one edit for all, sequences, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import weights_of

import romexp
from romexp.api.many import FactEdits
from romexp.api.models import LoadedModel
from romexp.errors import ConfigError, RecordError
from romexp.facts import EditRequest

Fact = dict[str, str]


@pytest.fixture(scope="module")
def facts(face_lm: LoadedModel) -> list[Fact]:
    """Three facts that the model can learn, since it knows others of their kind."""
    requests = [case.request for case in romexp.dataset("minifact", limit=3).loaded.items]
    return [{"prompt": r.prompt, "subject": r.subject, "target": r.target_new} for r in requests]


@pytest.fixture(scope="module")
def edits(face_lm: LoadedModel, facts: list[Fact]) -> FactEdits:
    return romexp.edit(face_lm, facts, method="memit")


def test_all_facts_are_written_at_once(face_lm: LoadedModel, facts: list[Fact], edits: FactEdits) -> None:
    table = edits.compare()
    assert list(table.index) == [fact["prompt"].replace("{}", fact["subject"]) for fact in facts]
    assert (table["P after"] > 0.3).all(), table
    assert (table["P before"] < 0.1).all(), table
    assert repr(edits).startswith("<MEMIT edit of minifact: 3 facts, |Δ| ")
    first = facts[0]["prompt"].replace("{}", facts[0]["subject"])
    assert str(edits.generate(first, 1)).startswith(f"{first} {facts[0]['target'][:3]}")
    before = weights_of(face_lm)
    with edits.applied() as model:
        changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == 3  # layers


def test_a_sequence_goes_on(face_lm: LoadedModel, facts: list[Fact], edits: FactEdits) -> None:
    first = romexp.edit(face_lm, facts[:2], method="memit")
    last = EditRequest(subject=facts[2]["subject"], prompt=facts[2]["prompt"], target_new=facts[2]["target"])
    both = romexp.edit(face_lm, [last], method="memit", after=first)
    assert [request.subject for request in both.requests] == [fact["subject"] for fact in facts]
    assert both.state.n_edits == 3
    assert (both.compare()["P after"] > 0.3).all(), both.compare()
    assert both.delta.digest != edits.delta.digest


def test_a_method_of_single_facts_takes_a_list_too(face_lm: LoadedModel, facts: list[Fact]) -> None:
    table = romexp.edit(face_lm, facts[:2], method="rome").compare()
    assert (table["P after"] > 0.3).all(), table


def test_facts_that_cannot_be_edited(face_lm: LoadedModel, facts: list[Fact]) -> None:
    long = {**facts[1], "prompt": "{} is" + " in" * 2000}
    with pytest.warns(UserWarning, match="1 of 2 facts are not edited; the first: .*tokens"):
        found = romexp.edit(face_lm, [long, facts[0]], method="memit")
    assert [request.subject for request in found.requests] == [facts[0]["subject"]]
    with pytest.raises(RecordError):
        romexp.edit(face_lm, [long], method="memit")


GOOD = {"prompt": "{} is", "subject": "x", "target": "y"}


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        ([{"prompt": "{} is", "subject": "x"}], {}, r"facts\[0\]\.target: expected a text, got NoneType"),
        ([GOOD, {**GOOD, "prompt": "is"}], {}, r"facts\[1\]\.prompt: expected exactly one"),
        ([{**GOOD, "object": "y"}], {}, r"facts\[0\]: there is no 'object'"),
        (["{} is"], {}, r"facts\[0\]: expected a mapping"),
        ([GOOD], {"subject": "x"}, "a list of facts has its own"),
        ("{} is", {"subject": "x", "target": "y", "after": object()}, "after: only a list of facts"),
    ],
)
def test_bad_facts_are_refused(face_lm: LoadedModel, given: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        romexp.edit(face_lm, given, method="memit", **more)
