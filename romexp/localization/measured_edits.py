"""Edits known facts at several layers, and measures by how much each edit did what was asked (docs/method.md §14.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

from romexp.editors.base import Edit, Resources
from romexp.errors import RecordError, without_errors
from romexp.facts import Case
from romexp.lm.model import LanguageModel
from romexp.localization.earlier_runs import EarlierEdits
from romexp.localization.methods import Methods
from romexp.localization.noised_subject import noised_subject, one_sample
from romexp.localization.objectives import Objective, Wanted, wanted
from romexp.localization.target_scores import Sample, Scores, pairs, probabilities, target_scores
from romexp.localization.traced import CaseTracer, TracedCase
from romexp.results.rows import Row

Skipped = dict[int, dict[str, str]]
"""By case and objective, why no edit was made."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Group:
    """Jobs of one objective that one call of an editor serves.

    Attributes:
        before: the scores of the unedited model.
        during: opens the context in which edits are made.
        samples: open the contexts in which edits are measured.
    """

    jobs: Sequence[Wanted]
    before: Sequence[Scores]
    during: Sample
    samples: Sequence[Sample]


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredEdits:
    """Makes a row for each case: its trace, and the target's probability before and after each edit.

    Attributes:
        layers: at which facts are edited.
        resources: of the editors.
        earlier: measurements of runs of `task=edit`, which are not made again.
    """

    lm: LanguageModel
    trace: CaseTracer
    methods: Methods
    objectives: Sequence[Objective]
    layers: Sequence[int]
    resources: Resources
    earlier: EarlierEdits

    def __call__(self, cases: Sequence[Case]) -> list[Row | RecordError]:
        """One row for each case, in order; or the error because of which it cannot be traced."""
        traced = self.trace(self.lm, cases)
        known = {t.case.case_id: t for t in without_errors(traced) if t.known}
        skipped: Skipped = {case_id: {} for case_id in known}
        edits: dict[int, list[dict[str, Any]]] = {case_id: [] for case_id in known}
        for group in self._groups(known, skipped):
            for method in self.methods.editors:
                for layer in self.layers:
                    for job, measured in self._at(method, layer, group):
                        about = {"method": method, "objective": job.objective, "layer": layer}
                        edits[job.case.case_id].append(about | measured)
        return [
            t if isinstance(t, RecordError) else _row(t, edits.get(t.case.case_id), skipped.get(t.case.case_id))
            for t in traced
        ]

    def _groups(self, known: Mapping[int, TracedCase], skipped: Skipped) -> Iterator[_Group]:
        """What is asked of the facts. An objective that asks nothing of a fact is noted in `skipped`."""
        for _, together in groupby(self._jobs(known, skipped), key=_shared):
            jobs = list(together)
            during: Sample = nullcontext
            samples: list[Sample] = [nullcontext]
            if jobs[0].noised and (noises := known[jobs[0].case.case_id].noises):
                during = partial(noised_subject, self.lm, noises)
                n = jobs[0].goal.copies
                samples = [partial(noised_subject, self.lm, one_sample(noises, i)) for i in range(n)]
            before = target_scores(self.lm, jobs, [None] * len(jobs), samples)
            for job, scores in zip(jobs, before, strict=True):
                if isinstance(scores, RecordError):
                    skipped[job.case.case_id][job.objective] = scores.reason
            kept = [job for job, scores in zip(jobs, before, strict=True) if not isinstance(scores, RecordError)]
            if kept:
                yield _Group(jobs=kept, before=without_errors(before), during=during, samples=samples)

    def _jobs(self, known: Mapping[int, TracedCase], skipped: Skipped) -> Iterator[Wanted]:
        for objective in self.objectives:
            for case_id, t in known.items():
                try:
                    copies = self.trace.tracer.samples
                    yield wanted(t.case, objective, noised_answer=t.noised_answer, copies=copies)
                except RecordError as error:
                    skipped[case_id][objective] = error.reason

    def _at(self, method: str, layer: int, group: _Group) -> Iterator[tuple[Wanted, dict[str, Any]]]:
        """Each job with the probabilities [before, after] of its edit at a layer, or with the edit's error."""
        n_layers = self.lm.n_layers
        after: dict[int, list[float | None] | RecordError] = {}
        for i, (job, before) in enumerate(zip(group.jobs, group.before, strict=True)):
            if (known := self.earlier(method, layer, job, before, n_layers=n_layers)) is not None:
                after[i] = known
        new = [i for i in range(len(group.jobs)) if i not in after]
        if new:
            after.update(zip(new, self._made(method, layer, group, new), strict=True))
        for i, (job, before) in enumerate(zip(group.jobs, group.before, strict=True)):
            found = after[i]
            error = isinstance(found, RecordError)
            yield job, {"error": found.reason} if error else pairs(probabilities(before), found)  # type: ignore

    def _made(
        self, method: str, layer: int, group: _Group, places: Sequence[int]
    ) -> list[list[float | None] | RecordError]:
        """Make the edits of the jobs at these places; the target's probabilities on each edited model."""
        jobs = [group.jobs[i] for i in places]
        editor = self.methods.at(method, jobs[0].objective, layer, n_layers=self.lm.n_layers)
        # What is kept in the cache belongs to subjects without noise.
        cache_dir = None if jobs[0].noised else self.resources.cache_dir
        resources = replace(self.resources, goal=jobs[0].goal, cache_dir=cache_dir)
        with group.during():
            made = editor(self.lm, [job.request for job in jobs], resources=resources)
        edited = [i for i, edit in enumerate(made) if isinstance(edit, Edit)]
        deltas = [edit.delta for edit in without_errors(made)]
        scores = target_scores(self.lm, [jobs[i] for i in edited], deltas, group.samples)
        found: list[list[float | None] | RecordError] = [e if isinstance(e, RecordError) else [] for e in made]
        for i, own in zip(edited, scores, strict=True):
            found[i] = own if isinstance(own, RecordError) else probabilities(own)
        return found


def _shared(job: Wanted) -> tuple[str, int | None]:
    """What jobs of one call share: the objective; with noise, which is that of one subject, also the fact."""
    return job.objective, job.case.case_id if job.noised else None


def _row(traced: TracedCase, edits: Sequence[Mapping[str, Any]] | None, skipped: Mapping[str, str] | None) -> Row:
    request = traced.case.request
    row: Row = {
        "case_id": traced.case.case_id,
        "prompt": request.text,
        "subject": request.subject,
        "target_true": request.target_true,
        "target_new": request.target_new,
        "correct_prediction": traced.known,
        **traced.about,
    }
    if traced.known:
        row |= {"noised_answer": traced.noised_answer, "edits": list(edits or ())}
    return row | ({"skipped": dict(skipped)} if skipped else {})
