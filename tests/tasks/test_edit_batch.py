"""A bad case does not take its batch with it; what was measured before is not measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from romexp.editors.base import Edit, Resources
from romexp.errors import RecordError
from romexp.facts import Case, EditRequest
from romexp.lm.weight_delta import Dense, WeightDelta
from romexp.tasks.edit_batch import CaseRunner
from romexp.tasks.unedited import UneditedCache


def case(number: int) -> Case:
    request = EditRequest(subject=f"S{number}", prompt="{} is", target_new="a", target_true="b")
    return Case(case_id=100 + number, request=request)


@dataclass
class FakeEditor:
    """Refuses some subjects, by their place in the batch; remembers what it was given."""

    bad: tuple[str, ...] = ()
    name: str = "fake"
    calls: list[list[str]] = field(default_factory=list)

    def __call__(self, lm: Any, requests: Sequence[EditRequest], *, resources: Resources) -> list[Edit]:
        self.calls.append([request.subject for request in requests])
        for i, request in enumerate(requests):
            if request.subject in self.bad:
                raise RecordError("no tokens", index=i, field="subject")
        return [
            Edit(delta=WeightDelta(terms={"w": Dense(value=torch.tensor([float(request.subject[1:])]))}))
            for request in requests
        ]


@dataclass
class FakeEvaluator:
    """A row says which case it is and through what delta it was seen."""

    bad: tuple[int, ...] = ()
    needs_references: bool = False
    calls: list[list[tuple[int, bool]]] = field(default_factory=list)

    def __call__(self, lm: Any, cases: Sequence[Case], *, deltas: Any, seed: int, references: Any) -> list[Any]:
        self.calls.append([(c.case_id, d is not None) for c, d in zip(cases, deltas, strict=True)])
        for one in cases:
            if one.case_id in self.bad:
                raise RecordError("no answer", index=one.case_id, field="neighborhood_targets")
        return [
            {"case": c.case_id, "delta": None if d is None else float(d.terms["w"].value)}
            for c, d in zip(cases, deltas, strict=True)
        ]


def runner(path: Path, editor: FakeEditor, evaluator: FakeEvaluator, context: object = 0) -> CaseRunner:
    def no_second_moment(layer: int) -> Any:
        raise AssertionError

    return CaseRunner(
        lm=None,  # type: ignore[arg-type]
        editor=editor,
        resources=Resources(second_moment=no_second_moment),
        evaluator=evaluator,
        references=None,
        unedited=UneditedCache(path=path / "unedited.sqlite", context={"x": context}),
    )


def test_every_case_gets_its_own_rows(tmp_path: Path) -> None:
    result = runner(tmp_path, FakeEditor(), FakeEvaluator())([case(1), case(2)])
    assert [(row["case_id"], row["pre"], row["post"]) for row in result.rows] == [
        (101, {"case": 101, "delta": None}, {"case": 101, "delta": 1.0}),
        (102, {"case": 102, "delta": None}, {"case": 102, "delta": 2.0}),
    ]
    assert result.set_aside == []


def test_a_row_says_what_the_model_was_asked(tmp_path: Path) -> None:
    asked = Case(
        case_id=7,
        request=case(1).request,
        paraphrase_prompts=("x", "y"),
        neighborhood_prompts=("who?",),
        neighborhood_targets=("she",),
        generation_prompts=("once", "once"),
    )
    first, second = runner(tmp_path, FakeEditor(), FakeEvaluator())([asked, case(2)]).rows
    assert first["prompts"] == {
        "rewrite_prompts": ["S1 is"],
        "paraphrase_prompts": ["x", "y"],
        "neighborhood_prompts": ["who?"],
        "neighborhood_targets": ["she"],
        "generation_prompts": ["once", "once"],
    }
    assert second["prompts"] == {"rewrite_prompts": ["S2 is"]}


def test_a_case_that_cannot_be_edited_is_set_aside(tmp_path: Path) -> None:
    editor = FakeEditor(bad=("S2", "S4"))
    result = runner(tmp_path, editor, FakeEvaluator())([case(i) for i in range(1, 6)])
    assert [row["case_id"] for row in result.rows] == [101, 103, 105]
    assert [row["post"]["delta"] for row in result.rows] == [1.0, 3.0, 5.0]
    assert result.set_aside == [
        {"case_id": 102, "field": "subject", "reason": "no tokens"},
        {"case_id": 104, "field": "subject", "reason": "no tokens"},
    ]
    assert editor.calls[-1] == ["S1", "S3", "S5"]


def test_a_case_that_cannot_be_measured_is_set_aside(tmp_path: Path) -> None:
    result = runner(tmp_path, FakeEditor(), FakeEvaluator(bad=(102,)))([case(1), case(2), case(3)])
    assert [(row["case_id"], row["post"]["delta"]) for row in result.rows] == [(101, 1.0), (103, 3.0)]
    assert result.set_aside == [{"case_id": 102, "field": "neighborhood_targets", "reason": "no answer"}]


def test_a_batch_of_bad_cases_gives_no_rows(tmp_path: Path) -> None:
    evaluator = FakeEvaluator()
    result = runner(tmp_path, FakeEditor(bad=("S1",)), evaluator)([case(1)])
    assert (result.rows, len(result.set_aside)) == ([], 1)


def test_an_error_that_names_no_case_is_not_swallowed(tmp_path: Path) -> None:
    class Broken(FakeEditor):
        def __call__(self, lm: Any, requests: Sequence[EditRequest], *, resources: Resources) -> list[Edit]:
            raise RecordError("which one?")

    with pytest.raises(RecordError, match="which one"):
        runner(tmp_path, Broken(), FakeEvaluator())([case(1)])


def test_unedited_rows_are_shared_between_runs(tmp_path: Path) -> None:
    first, second, other = FakeEvaluator(), FakeEvaluator(), FakeEvaluator()
    before = runner(tmp_path, FakeEditor(), first)([case(1), case(2)])
    after = runner(tmp_path, FakeEditor(), second)([case(1), case(2), case(3)])
    assert first.calls == [[(101, False), (102, False), (101, True), (102, True)]]
    assert second.calls == [[(103, False), (101, True), (102, True), (103, True)]]
    assert [row["pre"] for row in after.rows[:2]] == [row["pre"] for row in before.rows]
    runner(tmp_path, FakeEditor(), other, context="another seed")([case(1)])
    assert other.calls == [[(101, False), (101, True)]]


def test_a_changed_record_is_measured_anew(tmp_path: Path) -> None:
    cache = UneditedCache(path=tmp_path / "unedited.sqlite", context={})
    cache.put([case(1)], [{"x": 1}])
    assert cache.get([case(1)]) == {101: {"x": 1}}
    changed = Case(case_id=101, request=case(1).request, paraphrase_prompts=("S1 was",))
    assert cache.get([changed]) == {}
