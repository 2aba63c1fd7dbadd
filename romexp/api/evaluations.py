"""Editing many facts, each by itself, and measuring the model before and after: the paper's main experiment."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import pandas as pd

from romexp.analysis.summary import Summary, case_frame, summarize_frame
from romexp.api import checks
from romexp.api.datasets import CaseSet
from romexp.api.methods import Method, Moments, editor_for, not_tuned_for, resources_for
from romexp.api.progress import bar
from romexp.edit_batch import EditBatch, unedited_cache
from romexp.editors.base import Editor, Resources
from romexp.errors import ConfigError, DataError, RecordError
from romexp.files import cache_folder
from romexp.lm.model import LanguageModel
from romexp.lm.precision import in_own_precision
from romexp.reporting.tables.model import NOT_TUNED, NOT_TUNED_MARK
from romexp.reporting.tables.run import cell, columns_of, table_rows
from romexp.results.rows import CaseResult


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Evaluation:
    """The results of editing a set of cases, each by itself.

    Attributes:
        method: the editor's label.
        model: the model's name.
        dataset: the data set's name.
        results: one for each case that could be edited and measured.
        set_aside: why the others could not, by case id.
        seed: seed of the bootstrap interval of S.
        not_tuned: the method's settings that are another model's, by name.
    """

    method: str
    model: str
    dataset: str
    results: tuple[CaseResult, ...]
    set_aside: Mapping[int, str]
    seed: int = 0
    not_tuned: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One line for each case: `case_id`, `complete`, and metrics as `pre/ES`, `post/ES` (fractions; GE in bits)."""
        return case_frame(self.results)

    @cached_property
    def summary(self) -> Summary:
        """Means with 95 % intervals, ×100: `summary["post"]["ES"]["mean"]` (docs/method.md §5.7)."""
        return summarize_frame(self.frame, seed=self.seed)

    @property
    def table(self) -> pd.DataFrame:
        """The two lines of a table of the paper: the model before and after the edits."""
        rows = table_rows(self.summary, editor=self.method, not_tuned=self.not_tuned)
        names = columns_of(rows)
        cells = [[cell(row.metrics.get(name)) for name in names] for row in rows]
        return pd.DataFrame(cells, columns=names, index=[row.shown_label for row in rows])

    @property
    def _title(self) -> str:
        aside = f", {len(self.set_aside)} set aside" if self.set_aside else ""
        mark = f"; {NOT_TUNED_MARK} {NOT_TUNED}: {', '.join(self.not_tuned)}" if self.not_tuned else ""
        return f"{self.method} on {self.model}, {self.dataset}: {len(self.results)} cases{aside} (95 % interval){mark}"

    def __repr__(self) -> str:
        return f"{self._title}\n{self.table.to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._title)}</p>{self.table._repr_html_()}"  # type: ignore[operator]


@in_own_precision
def evaluate(
    lm: LanguageModel,
    cases: CaseSet,
    *,
    method: Method = "rome",
    generation: bool = False,
    covariance: Moments = None,
    batch_size: int = 25,
    seed: int = 0,
) -> Evaluation:
    """Edit each case by itself and measure the model before and after.

    What was measured on the unedited model is kept in the cache, shared with the command line.

    Args:
        lm: a model of `romexp.load`.
        cases: a data set of `romexp.dataset`.
        method: as for `romexp.edit`.
        generation: also draw texts and score them (GE, RS), which takes most of the time.
        covariance: as for `romexp.edit`.
        batch_size: cases edited and measured together.
        seed: seed of everything random.

    Raises:
        ConfigError: an argument is not what was expected, or the method cannot edit this model.
        DataError: not one case could be edited.
    """
    checks.model(lm)
    if not isinstance(cases, CaseSet):
        raise ConfigError(f"cases: expected a data set of romexp.dataset, got {type(cases).__name__}")
    size = checks.at_least(batch_size, 1, "batch_size")
    editor = editor_for(lm, method)
    with resources_for(lm, covariance, seed=seed) as resources:
        batch = _batch(lm, cases, editor, resources, generation=generation)
        results, aside = _run(batch, cases, size)
    if not results:
        first = next(iter(aside.values()))
        raise DataError(f"{cases.loaded.path}: not one of {len(aside)} cases could be edited; the first: {first}")
    return Evaluation(
        method=editor.name,
        model=lm.name,
        dataset=cases.loaded.name,
        results=tuple(results),
        set_aside=aside,
        seed=seed,
        not_tuned=not_tuned_for(lm, method),
    )


def _run(batch: EditBatch, cases: CaseSet, size: int) -> tuple[list[CaseResult], dict[int, str]]:
    """The results, and by case id the reasons why other cases have none."""
    results: list[CaseResult] = []
    aside: dict[int, str] = {}
    with bar(f"{batch.editor.name} on {batch.lm.name}, cases") as report:
        for start in range(0, len(cases), size):
            some = cases.loaded.items[start : start + size]
            for case, outcome in zip(some, batch(some).outcomes, strict=True):
                if isinstance(outcome, RecordError):
                    aside[case.case_id] = str(outcome)
                else:
                    results.append(outcome.result)
            report(start + len(some), len(cases))
    return results, aside


def _batch(lm: LanguageModel, cases: CaseSet, editor: Editor, resources: Resources, *, generation: bool) -> EditBatch:
    evaluator: Any = cases.evaluator
    if any(part.name == "generation" for part in fields(evaluator)):
        evaluator = replace(evaluator, generation="on" if generation else "off")
    elif generation:
        raise ConfigError(f"generation: the evaluator of {cases.loaded.name} draws no texts")
    references, digests = None, {}
    if evaluator.needs_references:
        loaded = cases.references.load(cases.references.needed(cases.loaded.items))
        references, digests = loaded.references, dict(loaded.digests)
    cache = cache_folder(None)
    return EditBatch(
        lm=lm,
        editor=editor,
        resources=resources,
        evaluator=evaluator,
        references=references,
        unedited=unedited_cache(lm, evaluator, references=digests, seed=resources.seed, cache_dir=cache),
    )
