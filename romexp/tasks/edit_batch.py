"""Editing and measuring a batch of cases, with the bad ones set aside instead of ending the run."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from romexp.editors.base import Edit, Editor, Resources
from romexp.errors import RecordError
from romexp.evaluation.base import EvaluationRow, Evaluator
from romexp.evaluation.generation import References
from romexp.facts import Case
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta
from romexp.results.rows import Row
from romexp.tasks.unedited import UneditedCache

EvaluationRows = dict[int, EvaluationRow]
"""What was measured, by case id."""

SetAside = list[dict[str, Any]]
"""One entry a case that could not be edited or measured: `case_id`, `field`, `reason`."""


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What came of a batch.

    Attributes:
        rows: one a case that could be edited and measured.
        deltas: the edits of these, by case id.
        set_aside: an entry for each of the others.
        edit_seconds: time that editing took.
        evaluate_seconds: time that measuring took.
    """

    rows: list[Row]
    deltas: dict[int, WeightDelta]
    set_aside: SetAside
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
        aside: SetAside = []
        start = time.perf_counter()
        cases, edits = self._edit(list(cases), aside)
        edited = time.perf_counter()
        before, after = self._measure(cases, edits, aside)
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

    def _edit(self, cases: list[Case], aside: SetAside) -> tuple[list[Case], list[Edit]]:
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
        self, cases: list[Case], edits: Sequence[Edit], aside: SetAside
    ) -> tuple[EvaluationRows, EvaluationRows]:
        """Rows before and after, in one call: they share most of the computation.

        Only cases that the cache lacks are measured unedited; an edit that changes nothing is not measured again. What
        another process is measuring unedited just now is taken from there at the end.
        """
        deltas = {case.case_id: edit.delta for case, edit in zip(cases, edits, strict=True) if edit.delta.terms}
        before = self.unedited.get(cases)
        with self.unedited.claimed(case for case in cases if case.case_id not in before) as claimed:
            before |= self.unedited.get(claimed)  # what was kept since the first look
            ours = {case.case_id for case in claimed if case.case_id not in before}
            good, new, edited = self._evaluate(cases, unedited=ours, deltas=deltas, aside=aside)
            before |= new
        before |= self._awaited([case for case in good if case.case_id not in before], aside)
        known = [case.case_id for case in good if case.case_id in before]
        return before, {case_id: edited.get(case_id, before[case_id]) for case_id in known}

    def _awaited(self, cases: list[Case], aside: SetAside) -> EvaluationRows:
        """Unedited rows of cases that another process was measuring; measured here if it came to nothing there."""
        if not cases:
            return {}
        with self.unedited.awaited(cases):
            found = self.unedited.get(cases)
            left = [case for case in cases if case.case_id not in found]
            _, new, _ = self._evaluate(left, unedited={case.case_id for case in left}, deltas={}, aside=aside)
        return found | new

    def _evaluate(
        self, cases: Sequence[Case], *, unedited: Collection[int], deltas: Mapping[int, WeightDelta], aside: SetAside
    ) -> tuple[list[Case], EvaluationRows, EvaluationRows]:
        """Measure and keep. After an error the rest is done again.

        Args:
            unedited: ids of those that are measured unedited.
            deltas: by case id, of those that are measured edited.

        Returns:
            The cases without those set aside, their rows unedited, their rows edited.
        """
        good = list(cases)
        while good:
            new = [case for case in good if case.case_id in unedited]
            changed = [case for case in good if case.case_id in deltas]
            try:
                rows = self.evaluator(
                    self.lm,
                    [*new, *changed],
                    deltas=[*(None for _ in new), *(deltas[case.case_id] for case in changed)],
                    seed=self.resources.seed,
                    references=self.references,
                )
            except RecordError as error:
                bad = next((case for case in good if case.case_id == error.index), None)
                if bad is None:
                    raise
                aside.append(_entry(bad, error))
                good.remove(bad)
                continue
            before, after = rows[: len(new)], rows[len(new) :]
            self.unedited.put(new, before)
            return good, _by_id(new, before), _by_id(changed, after)
        return [], {}, {}


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


def _by_id(cases: Sequence[Case], rows: Sequence[EvaluationRow]) -> EvaluationRows:
    return {case.case_id: row for case, row in zip(cases, rows, strict=True)}
