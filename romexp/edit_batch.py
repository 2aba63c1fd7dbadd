"""Edit a batch of cases, each by itself, and measure the model before and after each edit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romexp.editors.base import Edit, Editor, Resources
from romexp.errors import RecordError, with_errors_in_place
from romexp.evaluation.base import Evaluator
from romexp.evaluation.generation import References
from romexp.evaluation.text_metrics import tokenizer_in_use
from romexp.evaluation.unedited import UneditedCache, code_digest
from romexp.facts import Case, Measurements
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta
from romexp.results.identity import fingerprint
from romexp.results.rows import CaseResult


@dataclass(frozen=True, kw_only=True)
class MeasuredEdit:
    """One case that could be edited and measured."""

    result: CaseResult
    delta: WeightDelta


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What came of a batch.

    Attributes:
        outcomes: one a case, in order; in the place of a case that could not be edited or measured, its error.
        edit_seconds: time that editing took.
        evaluate_seconds: time that measuring took.
    """

    outcomes: list[MeasuredEdit | RecordError]
    edit_seconds: float
    evaluate_seconds: float


@dataclass(frozen=True, kw_only=True)
class EditBatch:
    """Everything that turns cases into results, held together over the batches of a run.

    Attributes:
        references: texts for the generation metrics; None where the evaluator looks at none.
        unedited: measurements of the model before any edit, shared with other runs.
    """

    lm: LanguageModel
    editor: Editor
    resources: Resources
    evaluator: Evaluator
    references: References | None
    unedited: UneditedCache

    def __call__(self, cases: Sequence[Case]) -> BatchResult:
        """Edit every case by itself and measure it before and after."""
        start = time.perf_counter()
        edits = self.editor(self.lm, [case.request for case in cases], resources=self.resources)
        edited = time.perf_counter()
        good = [(case, edit) for case, edit in zip(cases, edits, strict=True) if isinstance(edit, Edit)]
        each = (edited - start) / max(len(good), 1)
        outcomes = with_errors_in_place(edits, self._measured(good, seconds=each))
        return BatchResult(
            outcomes=outcomes,
            edit_seconds=edited - start,
            evaluate_seconds=time.perf_counter() - edited,
        )

    def _measured(self, edited: Sequence[tuple[Case, Edit]], *, seconds: float) -> list[MeasuredEdit | RecordError]:
        """The outcome of every case that could be edited."""
        cases = [case for case, _ in edited]
        changed = [(case, edit.delta) for case, edit in edited if edit.delta.terms]
        after: dict[int, Measurements | RecordError] = {}

        def measure(unknown: Sequence[Case]) -> list[Measurements | RecordError]:
            """The unedited model on these cases. The first call measures the edited ones too: they share most work."""
            todo = [] if after else changed
            if not unknown and not todo:
                return []
            found = self.evaluator(
                self.lm,
                [*unknown, *(case for case, _ in todo)],
                deltas=[*(None for _ in unknown), *(delta for _, delta in todo)],
                seed=self.resources.seed,
                references=self.references,
            )
            after.update((case.case_id, own) for (case, _), own in zip(todo, found[len(unknown) :], strict=True))
            return found[: len(unknown)]

        before = self.unedited.measurements(cases, measure)
        return [
            # An edit that changes nothing is not measured again.
            _outcome(case, edit, before=own, after=after.get(case.case_id, own), seconds=seconds)
            for (case, edit), own in zip(edited, before, strict=True)
        ]


def unedited_cache(
    lm: LanguageModel, evaluator: Evaluator, *, references: Mapping[str, Any], seed: int, cache_dir: Path
) -> UneditedCache:
    """Where measurements of the unedited model are shared by everything that measures it in the same way.

    Args:
        references: digests of the reference texts; empty where the evaluator looks at none.
    """
    context = {
        "model": lm.digest,
        "evaluator": fingerprint(evaluator),
        "references": dict(references),
        "words": tokenizer_in_use(),
        "seed": seed,
        "code": code_digest(),
    }
    return UneditedCache(path=cache_dir / "unedited.sqlite", context=context)


def _outcome(
    case: Case, edit: Edit, *, before: Measurements | RecordError, after: Measurements | RecordError, seconds: float
) -> MeasuredEdit | RecordError:
    if isinstance(before, RecordError):
        return before
    if isinstance(after, RecordError):
        return after
    result = CaseResult(
        case_id=case.case_id,
        request=case.request,
        prompts=prompts_of(case),
        before=before,
        after=after,
        edit=edit.diagnostics,
        seconds=seconds,
    )
    return MeasuredEdit(result=result, delta=edit.delta)


def prompts_of(case: Case) -> dict[str, list[str]]:
    """What the model was asked, under the names that the measurements have; for zsRE also the neighbours' answers.

    So that a result can be read without its data set.
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
