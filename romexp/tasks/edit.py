"""`task=edit`, the paper's main experiment: edits facts one by one and measures each edit (docs/method.md §5.1)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from romexp.analysis.summary import Summary, case_record, flatten
from romexp.bounds import check_bounds
from romexp.cli.job import Job, Outcome
from romexp.cli.progress import Report, bars
from romexp.data.dataset import Loaded
from romexp.edit_batch import EditBatch, unedited_cache
from romexp.editors.base import Editor, Resources
from romexp.editors.traced_layer import with_traced_layer
from romexp.errors import DataError, RecordError, without_errors
from romexp.evaluation.base import Evaluator
from romexp.evaluation.generation import References
from romexp.evaluation.text_metrics import tokenizer_in_use
from romexp.facts import Case, check_cases
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.lm.saved_edit import ModelOrigin
from romexp.model_settings import not_tuned_message, settings_not_tuned
from romexp.references import ReferenceSource
from romexp.reporting.tables.run import TableRow, coverage_notes, rich_table, table_rows
from romexp.results.folder import RunFolder
from romexp.results.identity import Identity, fingerprint, of_covariance
from romexp.results.rows import Row
from romexp.stats.covariance import Covariance
from romexp.stats.moment_source import MomentSource
from romexp.tasks.edit_results import EditResults, save_edit, tracked_table
from romexp.tasks.kept_results import lost_rows
from romexp.tasks.live import LiveCases, sample_of
from romexp.tasks.moments import second_moments
from romexp.tasks.planned import moments_at_hand, planned
from romexp.tasks.run import Run, describe_inputs, folder_path, model_identity, open_run, title_of
from romexp.tasks.tracked_end import report_boxes, report_texts
from romexp.tracking import TrackedRun

log = logging.getLogger(__name__)


class CaseSource(Protocol):
    """A data set of evaluation cases (config group `dataset`)."""

    def load(self) -> Loaded[Case]: ...


@dataclass(frozen=True, kw_only=True)
class EditExperiment:
    """Edit each case by itself. One row for each case holds what was measured before and after its edit.

    Attributes:
        model: the model that is edited.
        dataset: the cases.
        editor: the editing method.
        covariance: source of second moments, for editors that need them.
        evaluator: what is measured.
        references: reference texts, loaded only if the evaluator needs them.
        batch_size: number of cases edited and measured together; a killed run loses at most one such batch.
        save_deltas: write every edit to `deltas/<case_id>.safetensors`.
        tracked_cases: number of cases, drawn by the seed, whose losses and texts the tracker shows.
    """

    model: PretrainedModel
    dataset: CaseSource
    editor: Editor
    covariance: Covariance
    evaluator: Evaluator
    references: ReferenceSource
    batch_size: int = 25
    save_deltas: bool = False
    tracked_cases: int = 5
    _task: ClassVar[str] = "edit"

    def __post_init__(self) -> None:
        check_bounds(self, "task", from_0=("tracked_cases",), from_1=("batch_size",))

    def __call__(self, job: Job) -> Outcome:
        """Edit and measure every case that the run's folder does not hold yet; then summarize all cases.

        Raises:
            RomexpError: the input is invalid, another process is writing into the folder, or no case could be edited.
        """
        loaded = self._cases(job)
        lm = job.load(self.model)
        editor = with_traced_layer(self.editor, job.cache_dir, lm.digest)
        return replace(self, editor=editor)._run(job, lm, loaded)

    def plan(self, job: Job) -> Outcome:
        """What `dry_run` says: a few cases are edited and measured with caches of their own, as in a first run.

        Raises:
            RomexpError: the input is invalid.
        """
        loaded, lm = self._cases(job), job.load(self.model)
        own = replace(self, editor=with_traced_layer(self.editor, job.cache_dir, lm.digest))
        return own._plan(job, lm, loaded)

    def _plan(self, job: Job, lm: LanguageModel, loaded: Loaded[Case]) -> Outcome:
        texts = self._texts(job, loaded)
        folder = RunFolder(folder_path(job, self._names(job, lm), self._identity(job, lm, loaded, texts)))
        unmeasured: set[int] = set()
        with tempfile.TemporaryDirectory() as cache:
            moments = moments_at_hand(self.covariance, lm, unmeasured)
            references = self._references(job, loaded.items, texts)
            runner = self._runner(replace(job, cache_dir=Path(cache)), lm, references, texts, moments)
            outcome = planned(
                lm,
                folder.path,
                {case.case_id: case for case in loaded.items},
                lambda batch: runner(batch).outcomes,
                done=self._done(folder, job.seed),
                batch_size=self.batch_size,
                kind="case",
                times=self._times(len(loaded.items)),
            )
        layers = ", ".join(map(str, sorted(unmeasured)))
        first = [f"before: second moments of layer {layers} are measured, which is not in the estimate"]
        return replace(outcome, lines=[*outcome.lines, *(first if unmeasured else [])])

    def _done(self, folder: RunFolder, seed: int) -> set[int]:
        """The ids of the cases that need not be done again."""
        return {case.case_id for case in self._results(folder, seed).cases()}

    def _times(self, cases: int) -> float:
        """How often each of so many cases is measured, on average."""
        return 1.0

    def _texts(self, job: Job, loaded: Loaded[Case]) -> Mapping[str, Any]:
        """Digests of the reference texts; empty if the evaluator needs none."""
        if not self.evaluator.needs_references:
            return {}
        return job.references.digests(self.references, loaded.items, cache_dir=job.cache_dir)

    def _names(self, job: Job, lm: LanguageModel) -> dict[str, str]:
        """Parts of the result folder's path."""
        chosen = {part: job.choices[part] for part in ("dataset", "editor")}
        return {"task": self._task, "model": lm.name, **chosen}

    def _run(self, job: Job, lm: LanguageModel, loaded: Loaded[Case]) -> Outcome:
        texts = self._texts(job, loaded)
        dataset, editor = job.choices["dataset"], job.choices["editor"]
        not_tuned = settings_not_tuned(
            self.editor,
            option=editor,
            model=job.choices["model"],
            lm=lm,
            overrides=job.overrides,
            folders=job.config_folders,
        )
        identity = self._identity(job, lm, loaded, texts)
        with open_run(
            job,
            names=self._names(job, lm),
            identity=identity,
            facts=self._facts(job, lm, loaded) | {"settings_not_tuned": not_tuned},
            lacking=lambda folder, manifest: lost_rows(
                folder, manifest, [c.case_id for c in loaded.items], self._results(folder, job.seed).fault
            ),
        ) as run:
            if not_tuned:
                log.warning("%s", not_tuned_message(not_tuned, option=editor, model=job.choices["model"], name=lm.name))
            if run.was_done:
                return self._outcome(run, loaded, self._results(run.folder, job.seed, not_tuned).kept_summary())
            name = f"{lm.name} {dataset} {editor} {run.manifest['hash']}"
            with run.session(name=name, group=f"{lm.name} {dataset}", job_type=self._task) as tracked:
                with bars(job.sweep) as bar:
                    references = self._references(job, loaded.items, texts)
                    moments = second_moments(run, self.covariance, lm, report=bar("second moments"))
                    runner = self._runner(job, lm, references, texts, moments)
                    self._edit_pending(run, runner, loaded.items, bar(self.editor.name), tracked)
                summary = self._summarize(run, loaded, tracked)
            return self._outcome(run, loaded, summary)

    def _results(self, folder: RunFolder, seed: int, not_tuned: Collection[str] = ()) -> EditResults:
        return EditResults(folder=folder, with_deltas=self.save_deltas, seed=seed, not_tuned=tuple(not_tuned))

    def _facts(self, job: Job, lm: LanguageModel, loaded: Loaded[Case]) -> dict[str, Any]:
        """Entries of the manifest that describe the run's inputs."""
        # Looking for NLTK's data takes time, and without generated texts no words are cut.
        words = tokenizer_in_use() if self.evaluator.needs_references else ""
        return describe_inputs(job, lm, loaded) | {"word_tokenizer": words, "editor_label": self.editor.name}

    def _cases(self, job: Job) -> Loaded[Case]:
        loaded = self.dataset.load()
        check_cases(loaded.items, name=loaded.name, path=loaded.path, task=self._task)
        return loaded

    def _identity(self, job: Job, lm: LanguageModel, loaded: Loaded[Case], texts: Mapping[str, Any]) -> Identity:
        return {
            "task": self._task,
            "model": model_identity(lm, self.model),
            "dataset": {"sha256": loaded.sha256} | fingerprint(self.dataset, without=("path", "remote")),
            "editor": fingerprint(self.editor),
            "covariance": of_covariance(self.covariance),
            "evaluator": fingerprint(self.evaluator),
            "references": dict(texts),
            "seed": job.seed,
            "save_deltas": self.save_deltas,
        }

    def _references(self, job: Job, cases: Sequence[Case], texts: Mapping[str, Any]) -> References | None:
        """Load the texts with these digests; None if the evaluator needs none.

        Raises:
            DataError: the texts have changed since the digests were taken.
        """
        if not self.evaluator.needs_references:
            return None
        loaded = job.references.load(self.references, cases, cache_dir=job.cache_dir)
        if dict(loaded.digests) != dict(texts):
            raise DataError("references: the files have changed since the run began: run it again")
        return loaded.references

    def _reference_files(self, job: Job) -> list[Path]:
        """The files of the reference texts and that of their digests; empty if the evaluator needs none."""
        if not self.evaluator.needs_references:
            return []
        note = job.references.note(self.references, cache_dir=job.cache_dir)
        return [*self.references.files(), *([note] if note else [])]

    def _runner(
        self,
        job: Job,
        lm: LanguageModel,
        references: References | None,
        texts: Mapping[str, Any],
        moments: MomentSource,
    ) -> EditBatch:
        return EditBatch(
            lm=lm,
            editor=self.editor,
            resources=Resources(second_moment=moments, prepare=moments.prepare, cache_dir=job.cache_dir, seed=job.seed),
            evaluator=self.evaluator,
            references=references,
            unedited=unedited_cache(lm, self.evaluator, references=texts, seed=job.seed, cache_dir=job.cache_dir),
        )

    def _edit_pending(
        self, run: Run, runner: EditBatch, cases: Sequence[Case], report: Report, tracked: TrackedRun
    ) -> None:
        """Append a row for every case that has none, or list it in the manifest if it cannot be edited or measured."""

        def work(batch: Sequence[Case]) -> list[Row | RecordError]:
            done = runner(batch)
            run.add_seconds(edit=done.edit_seconds, evaluate=done.evaluate_seconds)
            if self.save_deltas:  # before the rows, so that every case with a row has its delta
                origin = ModelOrigin.of(runner.lm, source=str(self.model.path), revision=self.model.revision)
                for measured in without_errors(done.outcomes):
                    save_edit(measured, self.editor, origin, run.folder.delta(measured.result.case_id))
            return [each if isinstance(each, RecordError) else each.result.to_json() for each in done.outcomes]

        kept, sample = self._results(run.folder, run.job.seed), self._sample(cases, run.job)
        run.run_batches(
            {case.case_id: case for case in cases},
            work,
            batch_size=self.batch_size,
            report=report,
            kind="case",
            fault=kept.fault,
            live=LiveCases(tracked=tracked, sample=sample, records=[case_record(each) for each in kept.cases()]),
        )

    def _sample(self, cases: Sequence[Case], job: Job) -> frozenset[int]:
        return sample_of([case.case_id for case in cases], self.tracked_cases, seed=job.seed)

    def _summarize(self, run: Run, loaded: Loaded[Case], tracked: TrackedRun) -> Summary:
        kept = self._results(run.folder, run.job.seed, run.manifest["settings_not_tuned"])
        results = kept.cases()
        if not results:
            aside = run.manifest["set_aside"]
            raise DataError(f"{loaded.path}: not one of {len(aside)} cases could be edited; the first: {aside[0]}")
        summary, frame = kept.write_summary(results)
        tracked.table("cases", *tracked_table(results, frame))
        tracked.summary(flatten(summary))
        report_texts(tracked, results, self._sample(loaded.items, run.job))
        title = f"{title_of(run.manifest['model'])}, {loaded.name}, {len(results)} cases"
        report_boxes(tracked, frame, editor=run.job.choices["editor"], label=self.editor.name, title=title)
        return summary

    def _outcome(self, run: Run, loaded: Loaded[Case], summary: Summary) -> Outcome:
        count = summary.get("n_cases", 0)
        cases = f"{count} {'case' if count == 1 else 'cases'}"
        title = f"{title_of(run.manifest['model'])}, {loaded.name}, {cases} (95 % interval)"
        without = sum(not case.request.target_true for case in loaded.items)
        notes = coverage_notes(summary, without_old_answer=without)
        return Outcome(
            tables=(rich_table(self._table_rows(run, summary), title=title, notes=notes),),
            lines=run.closing_lines(),
            folder=run.folder.path,
            inputs=(Path(loaded.path), *self._reference_files(run.job)),
        )

    def _table_rows(self, run: Run, summary: Summary) -> list[TableRow]:
        return table_rows(summary, editor=self.editor.name, not_tuned=run.manifest.get("settings_not_tuned", {}))
