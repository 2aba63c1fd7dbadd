"""Edits a batch of cases, each by itself, and measures the model before and after each edit (docs/method.md §5.1)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romexp.editors.base import Edit, Editor, Resources
from romexp.errors import RecordError, with_errors_in_place
from romexp.evaluation.base import Evaluator, finite
from romexp.evaluation.generation import References
from romexp.evaluation.text_metrics import tokenizer_in_use
from romexp.evaluation.unedited import CODE, UneditedCache
from romexp.facts import Case, Measurements
from romexp.files import code_digest
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta
from romexp.results.identity import fingerprint
from romexp.results.rows import CaseResult


@dataclass(frozen=True, kw_only=True)
class MeasuredEdit:
    """The measurements of one case and the delta of its edit."""

    result: CaseResult
    delta: WeightDelta


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """The result of a batch.

    Attributes:
        outcomes: for each case, in order, its measured edit; or the `RecordError` for which it could not be edited or
            measured.
        edit_seconds: time for editing the batch.
        evaluate_seconds: time for measuring the batch.
    """

    outcomes: list[MeasuredEdit | RecordError]
    edit_seconds: float
    evaluate_seconds: float


@dataclass(frozen=True, kw_only=True)
class EditBatch:
    """Edits and measures batches of cases. One object serves all batches of a run.

    Attributes:
        lm: the model.
        editor: the editing method.
        resources: what the editor needs besides the model; its seed is also that of the evaluator.
        evaluator: measures the model.
        references: texts for the generation metrics; None if the evaluator needs none.
        unedited: cache of measurements of the unedited model, shared with other runs.
    """

    lm: LanguageModel
    editor: Editor
    resources: Resources
    evaluator: Evaluator
    references: References | None
    unedited: UneditedCache

    def __call__(self, cases: Sequence[Case]) -> BatchResult:
        """Edit each case by itself, and measure the model on it before and after the edit."""
        start = time.perf_counter()
        edits = self.editor(self.lm, [case.request for case in cases], resources=self.resources)
        edited = time.perf_counter()
        good = [(case, edit) for case, edit in zip(cases, edits, strict=True) if isinstance(edit, Edit)]
        seconds_per_case = (edited - start) / max(len(good), 1)
        outcomes = with_errors_in_place(edits, self._measured(good, seconds=seconds_per_case))
        return BatchResult(
            outcomes=outcomes,
            edit_seconds=edited - start,
            evaluate_seconds=time.perf_counter() - edited,
        )

    def measured_together(
        self, cases: Sequence[Case], delta: WeightDelta, *, diagnostics: Sequence[Mapping[str, Any]], seconds: float
    ) -> list[CaseResult | RecordError]:
        """Measure cases on the unedited model, and on the model with one edit for all of them.

        Args:
            delta: the edit. It is written into the weights while they are measured, so that it costs nothing whatever
                its rank, and half-precision weights are rounded once.
            diagnostics: what the editor says of each case.
            seconds: editing time of each case.
        """

        def measure(some: Sequence[Case]) -> list[Measurements | RecordError]:
            if not some:
                return []
            nothing = [None] * len(some)
            return self.evaluator(self.lm, some, deltas=nothing, seed=self.resources.seed, references=self.references)

        before = self.unedited.measurements(cases, measure)
        with applied(self.lm, delta):
            after = measure(cases)
        return [
            _result(case, about, before=own, after=then, seconds=seconds)
            for case, about, own, then in zip(cases, diagnostics, before, after, strict=True)
        ]

    def _measured(self, edited: Sequence[tuple[Case, Edit]], *, seconds: float) -> list[MeasuredEdit | RecordError]:
        """The outcomes of the cases that could be edited, in order.

        Args:
            seconds: editing time of each case.
        """
        cases = [case for case, _ in edited]
        changed = [(case, edit.delta) for case, edit in edited if edit.delta.terms]
        after: dict[int, Measurements | RecordError] = {}

        def measure(unknown: Sequence[Case]) -> list[Measurements | RecordError]:
            """Measure the unedited model on these cases.

            The first call measures the edited models too, because one pass for both saves most of the work.
            """
            edited_too = [] if after else changed
            if not unknown and not edited_too:
                return []
            found = self.evaluator(
                self.lm,
                [*unknown, *(case for case, _ in edited_too)],
                deltas=[*(None for _ in unknown), *(delta for _, delta in edited_too)],
                seed=self.resources.seed,
                references=self.references,
            )
            after.update((case.case_id, own) for (case, _), own in zip(edited_too, found[len(unknown) :], strict=True))
            return found[: len(unknown)]

        before = self.unedited.measurements(cases, measure)
        return [
            # For an edit with an empty delta the measurements before the edit are used.
            _outcome(case, edit, before=own, after=after.get(case.case_id, own), seconds=seconds)
            for (case, edit), own in zip(edited, before, strict=True)
        ]


def unedited_cache(
    lm: LanguageModel, evaluator: Evaluator, *, references: Mapping[str, Any], seed: int, cache_dir: Path
) -> UneditedCache:
    """The cache of measurements of the unedited model. Runs that measure it in the same way share it
    (docs/method.md §9.3).

    Args:
        references: digests of the reference texts; empty if the evaluator needs none.
        cache_dir: folder of the cache.
    """
    context = {
        "model": lm.cache_key,
        "evaluator": fingerprint(evaluator),
        "references": dict(references),
        "words": tokenizer_in_use() if evaluator.needs_references else None,
        "seed": seed,
        "code": code_digest(CODE),
    }
    return UneditedCache(path=cache_dir / "unedited.sqlite", context=context)


def _outcome(
    case: Case, edit: Edit, *, before: Measurements | RecordError, after: Measurements | RecordError, seconds: float
) -> MeasuredEdit | RecordError:
    about = {**edit.diagnostics, "update_norm": finite(edit.delta.norm())}
    result = _result(case, about, before=before, after=after, seconds=seconds)
    return result if isinstance(result, RecordError) else MeasuredEdit(result=result, delta=edit.delta)


def _result(
    case: Case,
    diagnostics: Mapping[str, Any],
    *,
    before: Measurements | RecordError,
    after: Measurements | RecordError,
    seconds: float,
) -> CaseResult | RecordError:
    if isinstance(before, RecordError):
        return before
    if isinstance(after, RecordError):
        return after
    return CaseResult(
        case_id=case.case_id,
        request=case.request,
        prompts=prompts_of(case),
        before=before,
        after=after,
        edit=diagnostics,
        seconds=seconds,
    )


def prompts_of(case: Case) -> dict[str, list[str]]:
    """The prompts of a case, by the names of the measurements; for zsRE also the neighbourhood prompts' answers.

    They are stored with a result, so that it can be read without the data set.
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
