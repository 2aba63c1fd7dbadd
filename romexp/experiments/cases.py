"""Editing and measuring a batch of cases, with the bad ones set aside instead of ending the run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from romexp.editors.base import Edit, Editor, Resources
from romexp.errors import RecordError
from romexp.evaluation.base import EvaluationRow, Evaluator
from romexp.evaluation.generation import References
from romexp.experiments.unedited import UneditedCache
from romexp.facts import Case
from romexp.lm.deltas import WeightDelta
from romexp.lm.model import LanguageModel
from romexp.reporting.rows import Row


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What came of a batch.

    Attributes:
        rows: one a case that could be edited and measured.
        deltas: the edits of these, by case id.
        set_aside: one entry a case that could not: `case_id`, `field`, `reason`.
        edit_seconds: time that editing took.
        evaluate_seconds: time that measuring took.
    """

    rows: list[Row]
    deltas: dict[int, WeightDelta]
    set_aside: list[dict[str, Any]]
    edit_seconds: float
    evaluate_seconds: float


@dataclass(frozen=True, kw_only=True)
class CaseRunner:
    """Everything that turns cases into rows, held together over the batches of a run."""

    lm: LanguageModel
    editor: Editor
    resources: Resources
    evaluator: Evaluator
    references: References | None
    unedited: UneditedCache

    def __call__(self, cases: Sequence[Case]) -> BatchResult:
        """Edit every case by itself and measure it before and after."""
        aside: list[dict[str, Any]] = []
        start = time.perf_counter()
        cases, edits = self._edit(list(cases), aside)
        edited = time.perf_counter()
        before, after = self._measure(cases, [edit.delta for edit in edits], aside)
        measured = time.perf_counter()
        each = (edited - start) / max(len(edits), 1)
        rows = [
            {
                "case_id": case.case_id,
                "requested_rewrite": asdict(case.request),
                "prompts": prompts_of(case),
                "pre": before[case.case_id],
                "post": after[case.case_id],
                "edit": dict(edit.diagnostics),
                "time": round(each, 6),
            }
            for case, edit in zip(cases, edits, strict=True)
            if case.case_id in after
        ]
        return BatchResult(
            rows=rows,
            deltas={case.case_id: edit.delta for case, edit in zip(cases, edits, strict=True)},
            set_aside=aside,
            edit_seconds=edited - start,
            evaluate_seconds=measured - edited,
        )

    def _edit(self, cases: list[Case], aside: list[dict[str, Any]]) -> tuple[list[Case], list[Edit]]:
        """The cases that could be edited, with their edits. After an error the rest of the batch is done again."""
        while cases:
            try:
                requests = [case.request for case in cases]
                return cases, self.editor(self.lm, requests, resources=self.resources)
            except RecordError as error:
                if error.index is None or not 0 <= error.index < len(cases):
                    raise
                aside.append(_entry(cases.pop(error.index), error))
        return [], []

    def _measure(
        self, cases: list[Case], deltas: list[WeightDelta], aside: list[dict[str, Any]]
    ) -> tuple[dict[int, EvaluationRow], dict[int, EvaluationRow]]:
        """Rows before and after by case id, in one call: they share most of the computation.

        Only cases that the cache lacks are measured unedited; an edit that changes nothing is not measured again. What
        another process is measuring unedited just now is taken from there at the end.
        """
        pairs = list(zip(cases, deltas, strict=True))
        before = self.unedited.get(cases)
        with self.unedited.claimed(case for case in cases if case.case_id not in before) as claimed:
            before |= self.unedited.get(claimed)  # what was kept since the first look
            ours = {case.case_id for case in claimed if case.case_id not in before}
            while True:
                new = [case for case, _ in pairs if case.case_id in ours]
                changed = [(case, delta) for case, delta in pairs if delta.terms]
                try:
                    measured = self._evaluate(new, changed)
                    break
                except RecordError as error:
                    bad = next((pair for pair in pairs if pair[0].case_id == error.index), None)
                    if bad is None:
                        raise
                    aside.append(_entry(bad[0], error))
                    pairs.remove(bad)
            self.unedited.put(new, measured[: len(new)])
        before |= {case.case_id: row for case, row in zip(new, measured, strict=False)}
        before |= self._awaited([case for case, _ in pairs if case.case_id not in before], aside)
        after = {case.case_id: before[case.case_id] for case, _ in pairs if case.case_id in before}
        edited = {case.case_id: row for (case, _), row in zip(changed, measured[len(new) :], strict=True)}
        return before, after | {case_id: row for case_id, row in edited.items() if case_id in before}

    def _awaited(self, cases: list[Case], aside: list[dict[str, Any]]) -> dict[int, EvaluationRow]:
        """Unedited rows of cases that another process was measuring; measured here if it came to nothing there."""
        if not cases:
            return {}
        with self.unedited.awaited(cases):
            found = self.unedited.get(cases)
            left = [case for case in cases if case.case_id not in found]
            while left:
                try:
                    rows = self._evaluate(left, [])
                    self.unedited.put(left, rows)
                    return found | {case.case_id: row for case, row in zip(left, rows, strict=True)}
                except RecordError as error:
                    bad = next((case for case in left if case.case_id == error.index), None)
                    if bad is None:
                        raise
                    aside.append(_entry(bad, error))
                    left.remove(bad)
        return found

    def _evaluate(
        self, unedited: Sequence[Case], edited: Sequence[tuple[Case, WeightDelta]]
    ) -> Sequence[EvaluationRow]:
        """Rows of the first cases unedited, then of the others edited.

        Raises:
            RecordError: a case cannot be measured; its `index` is the case's id.
        """
        return self.evaluator(
            self.lm,
            [*unedited, *(case for case, _ in edited)],
            deltas=[*(None for _ in unedited), *(delta for _, delta in edited)],
            seed=self.resources.seed,
            references=self.references,
        )


def prompts_of(case: Case) -> dict[str, list[str]]:
    """What the model was asked, under the names that the measurements have; for zsRE also the neighbours' answers.

    So that a row can be read without its data set. A row that was written before there was this part lacks it.
    """
    prompts = {
        "rewrite_prompts": [case.request.text],
        "paraphrase_prompts": list(case.paraphrase_prompts),
        "neighborhood_prompts": list(case.neighborhood_prompts),
        "attribute_prompts": list(case.attribute_prompts),
        "generation_prompts": list(case.generation_prompts),
        "neighborhood_targets": list(case.neighborhood_targets),
    }
    return {kind: texts for kind, texts in prompts.items() if texts}


def _entry(case: Case, error: RecordError) -> dict[str, Any]:
    return {"case_id": case.case_id, "field": error.field, "reason": error.reason}
