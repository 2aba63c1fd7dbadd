"""A bad case neither takes its batch with it nor costs a second edit; what was measured is not measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from romexp.edit_batch import BatchResult, EditBatch, MeasuredEdit
from romexp.editors.base import Edit, Resources
from romexp.errors import RecordError, without_errors
from romexp.evaluation.unedited import UneditedCache
from romexp.facts import Case, EditRequest
from romexp.lm.weight_delta import Dense, WeightDelta
from romexp.results.rows import CaseResult


def case(number: int) -> Case:
    request = EditRequest(subject=f"S{number}", prompt="{} is", target_new="a", target_true="b")
    return Case(case_id=100 + number, request=request)


@dataclass
class FakeEditor:
    """Refuses some subjects, changes nothing for others, and remembers what it was given."""

    bad: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    name: str = "fake"
    calls: list[list[str]] = field(default_factory=list)

    def __call__(self, lm: Any, requests: Sequence[EditRequest], *, resources: Resources) -> list[Edit | RecordError]:
        self.calls.append([request.subject for request in requests])
        return [self._edit(request.subject) for request in requests]

    def _edit(self, subject: str) -> Edit | RecordError:
        if subject in self.bad:
            return RecordError("no tokens", field="subject")
        terms = {} if subject in self.idle else {"w": Dense(value=torch.tensor([float(subject[1:])]))}
        return Edit(delta=WeightDelta(terms=terms), diagnostics={"of": subject})


@dataclass
class FakeEvaluator:
    """Measurements say which case it is and through what delta it was seen.

    Attributes:
        bad: cases that cannot be measured.
        bad_once_edited: cases that can be measured unedited only.
    """

    bad: tuple[int, ...] = ()
    bad_once_edited: tuple[int, ...] = ()
    needs_references: bool = False
    calls: list[list[tuple[int, bool]]] = field(default_factory=list)

    def __call__(self, lm: Any, cases: Sequence[Case], *, deltas: Any, seed: int, references: Any) -> list[Any]:
        self.calls.append([(c.case_id, d is not None) for c, d in zip(cases, deltas, strict=True)])
        return [self._measure(c.case_id, d) for c, d in zip(cases, deltas, strict=True)]

    def _measure(self, case_id: int, delta: WeightDelta | None) -> Any:
        if case_id in self.bad or (delta is not None and case_id in self.bad_once_edited):
            return RecordError("no answer", field="neighborhood_targets")
        return {"case": case_id, "delta": None if delta is None else float(delta.terms["w"].dense())}


def batch(path: Path, editor: FakeEditor, evaluator: FakeEvaluator, context: object = 0) -> EditBatch:
    def no_second_moment(layer: int) -> Any:
        raise AssertionError

    return EditBatch(
        lm=None,  # type: ignore[arg-type]
        editor=editor,
        resources=Resources(second_moment=no_second_moment),
        evaluator=evaluator,
        references=None,
        unedited=UneditedCache(path=path / "unedited.sqlite", context={"x": context}),
    )


def results(done: BatchResult) -> list[CaseResult]:
    return [measured.result for measured in without_errors(done.outcomes)]


def deltas_after(done: BatchResult) -> list[tuple[int, float]]:
    return [(result.case_id, (result.after or {})["delta"]) for result in results(done)]


def test_every_case_gets_its_own_measurements_and_delta(tmp_path: Path) -> None:
    done = batch(tmp_path, FakeEditor(), FakeEvaluator())([case(1), case(2)])
    assert [(result.case_id, result.before, result.after) for result in results(done)] == [
        (101, {"case": 101, "delta": None}, {"case": 101, "delta": 1.0}),
        (102, {"case": 102, "delta": None}, {"case": 102, "delta": 2.0}),
    ]
    assert [float(measured.delta.terms["w"].dense()) for measured in without_errors(done.outcomes)] == [1.0, 2.0]
    assert [result.edit for result in results(done)] == [
        {"of": "S1", "update_norm": 1.0},
        {"of": "S2", "update_norm": 2.0},
    ]
    assert [result.request for result in results(done)] == [case(1).request, case(2).request]


def test_each_case_takes_its_share_of_the_editing_time(tmp_path: Path) -> None:
    """Cases that could not be edited take none of it."""
    done = batch(tmp_path, FakeEditor(bad=("S2",)), FakeEvaluator())([case(1), case(2), case(3)])
    assert done.edit_seconds > 0
    assert done.evaluate_seconds > 0
    assert [result.seconds for result in results(done)] == [pytest.approx(done.edit_seconds / 2)] * 2


def test_a_result_says_what_the_model_was_asked(tmp_path: Path) -> None:
    asked = Case(
        case_id=7,
        request=case(1).request,
        paraphrase_prompts=("x", "y"),
        neighborhood_prompts=("who?",),
        neighborhood_targets=("she",),
        generation_prompts=("once", "once"),
    )
    first, second = results(batch(tmp_path, FakeEditor(), FakeEvaluator())([asked, case(2)]))
    assert first.prompts == {
        "rewrite_prompts": ["S1 is"],
        "paraphrase_prompts": ["x", "y"],
        "neighborhood_prompts": ["who?"],
        "neighborhood_targets": ["she"],
        "generation_prompts": ["once", "once"],
    }
    assert second.prompts == {"rewrite_prompts": ["S2 is"]}


def test_a_case_that_cannot_be_edited_is_one_error_and_no_further_work(tmp_path: Path) -> None:
    """The editor is called once, with the whole batch; the evaluator once, and it never sees the bad cases."""
    editor, evaluator = FakeEditor(bad=("S2", "S4")), FakeEvaluator()
    done = batch(tmp_path, editor, evaluator)([case(i) for i in range(1, 6)])
    assert [type(outcome) for outcome in done.outcomes] == [
        MeasuredEdit,
        RecordError,
        MeasuredEdit,
        RecordError,
        MeasuredEdit,
    ]
    assert deltas_after(done) == [(101, 1.0), (103, 3.0), (105, 5.0)]
    error = done.outcomes[1]
    assert isinstance(error, RecordError)
    assert (error.field, error.reason) == ("subject", "no tokens")
    assert editor.calls == [["S1", "S2", "S3", "S4", "S5"]]
    assert evaluator.calls == [[(101, False), (103, False), (105, False), (101, True), (103, True), (105, True)]]


@pytest.mark.parametrize("refused", [{"bad": (102,)}, {"bad_once_edited": (102,)}])
def test_a_case_that_cannot_be_measured_is_one_error_and_no_further_work(
    tmp_path: Path, refused: dict[str, tuple[int, ...]]
) -> None:
    """Whether the unedited model or the edited one cannot be measured on it."""
    editor, evaluator = FakeEditor(), FakeEvaluator(**refused)
    done = batch(tmp_path, editor, evaluator)([case(1), case(2), case(3)])
    assert deltas_after(done) == [(101, 1.0), (103, 3.0)]
    error = done.outcomes[1]
    assert isinstance(error, RecordError)
    assert (error.field, error.reason) == ("neighborhood_targets", "no answer")
    assert (len(editor.calls), len(evaluator.calls)) == (1, 1)


def test_a_bad_case_costs_one_call_each_where_the_others_were_measured_before(tmp_path: Path) -> None:
    """An error is not kept, so the unedited model is asked again; the edited ones are measured in the same call."""
    batch(tmp_path, FakeEditor(), FakeEvaluator(bad=(102,)))([case(1), case(2), case(3)])
    editor, evaluator = FakeEditor(bad=("S3",)), FakeEvaluator(bad=(102,))
    done = batch(tmp_path, editor, evaluator)([case(1), case(2), case(3)])
    assert [isinstance(outcome, RecordError) for outcome in done.outcomes] == [False, True, True]
    assert editor.calls == [["S1", "S2", "S3"]]
    assert evaluator.calls == [[(102, False), (101, True), (102, True)]]


def test_a_batch_of_bad_cases_is_edited_once_and_never_measured(tmp_path: Path) -> None:
    editor, evaluator = FakeEditor(bad=("S1", "S2")), FakeEvaluator()
    done = batch(tmp_path, editor, evaluator)([case(1), case(2)])
    assert all(isinstance(outcome, RecordError) for outcome in done.outcomes)
    assert (len(editor.calls), evaluator.calls) == (1, [])


def test_an_edit_that_changes_nothing_is_not_measured_again(tmp_path: Path) -> None:
    evaluator = FakeEvaluator()
    done = batch(tmp_path, FakeEditor(idle=("S2",)), evaluator)([case(1), case(2)])
    assert evaluator.calls == [[(101, False), (102, False), (101, True)]]
    first, second = results(done)
    assert second.after == second.before
    assert first.after != first.before
    again = FakeEvaluator()
    batch(tmp_path, FakeEditor(idle=("S1", "S2")), again)([case(1), case(2)])
    assert again.calls == []


def test_an_error_that_an_editor_raises_is_not_swallowed(tmp_path: Path) -> None:
    class Broken(FakeEditor):
        def __call__(self, lm: Any, requests: Sequence[EditRequest], *, resources: Resources) -> Any:
            raise RecordError("which one?")

    with pytest.raises(RecordError, match="which one"):
        batch(tmp_path, Broken(), FakeEvaluator())([case(1)])


def test_what_was_measured_unedited_is_shared_between_runs(tmp_path: Path) -> None:
    first, second, other = FakeEvaluator(), FakeEvaluator(), FakeEvaluator()
    before = batch(tmp_path, FakeEditor(), first)([case(1), case(2)])
    after = batch(tmp_path, FakeEditor(), second)([case(1), case(2), case(3)])
    assert first.calls == [[(101, False), (102, False), (101, True), (102, True)]]
    assert second.calls == [[(103, False), (101, True), (102, True), (103, True)]]
    assert [result.before for result in results(after)[:2]] == [result.before for result in results(before)]
    third = FakeEvaluator()
    batch(tmp_path, FakeEditor(), third)([case(1), case(2)])
    assert third.calls == [[(101, True), (102, True)]]
    batch(tmp_path, FakeEditor(), other, context="another seed")([case(1)])
    assert other.calls == [[(101, False), (101, True)]]
