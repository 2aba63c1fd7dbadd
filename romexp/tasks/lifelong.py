"""`task=lifelong`: edits one model many times, in steps, and measures what is left of each edit
(docs/method.md §13).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from romexp.analysis.summary import UNEDITED, Summary, flatten
from romexp.bounds import check_bounds
from romexp.cli.job import Job, Outcome
from romexp.cli.progress import Report
from romexp.data.conflicts import Contradiction, Contradictions, Order, choose
from romexp.data.dataset import Loaded
from romexp.edit_batch import EditBatch
from romexp.errors import ConfigError, DataError
from romexp.evaluation.collapse import CollapseWatch
from romexp.facts import Case
from romexp.lm.model import LanguageModel
from romexp.reporting.tables.run import TableRow, rich_table
from romexp.results.find import FoundRun
from romexp.results.folder import RunFolder
from romexp.results.identity import Identity, fingerprint
from romexp.results.rows import CaseResult
from romexp.tasks.edit import EditExperiment
from romexp.tasks.lifelong_plan import plan
from romexp.tasks.lifelong_results import LifelongResults
from romexp.tasks.lifelong_steps import StepsOfRun
from romexp.tasks.lifelong_watch import WatchOfRun, watch_lines
from romexp.tasks.live import LiveSequence
from romexp.tasks.run import Run, title_of
from romexp.tasks.tracked_end import report_sequence, report_texts
from romexp.tracking import TrackedRun

log = logging.getLogger(__name__)

LISTS = ("retention", "watch", "stopped", "settings_not_tuned")
"""Parts of the summary that are no statistics of one metric."""


@dataclass(frozen=True)
class ChosenCases(Loaded[Case]):
    """The cases of a run in the order of their edits, and those that were left out because they contradict them."""

    contradictions: tuple[Contradiction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LifelongExperiment(EditExperiment):
    """Edit one model in steps. Edits add up, and what was measured on the unedited model comes from the original one.

    Attributes:
        edits: number of cases to edit; None takes all of the data set.
        step: number of cases that are edited together. An editor that cannot do that edits them one after another.
        order: `shuffled` by the run's seed, or `file`.
        contradictions: what to do with a case that asks for another answer than an earlier one about the same subject
            and relation: leave it out (`first`), `keep` it, or stop (`refuse`).
        immediate: measure each case right after its step.
        checkpoints: numbers of edits, multiples of `step`, after which all cases edited so far are measured. After the
            last edit they always are.
        batch_size: number of cases that are measured together.
        watch: looks for signs of collapse before the first edit, at each checkpoint and at the end; None does not.

    Raises:
        ConfigError: a number is below 1, or is no multiple of `step` or beyond `edits`.
    """

    edits: int | None = None
    step: int = 1
    order: Order = "shuffled"
    contradictions: Contradictions = "first"
    immediate: bool = True
    checkpoints: Sequence[int] = ()
    watch: CollapseWatch | None = None
    _task: ClassVar[str] = "lifelong"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, "task", from_1=("edits", "step"))
        if self.edits is not None and self.step > self.edits:
            raise ConfigError(f"task.step: a step of {self.step} cases is larger than task.edits={self.edits}")
        if getattr(self.editor, "statistics", None) == "training":
            raise ConfigError(
                "editor.statistics: training collects them from edit to edit, and an interrupted sequence would lose "
                "them; task=lifelong takes frozen ones"
            )
        for number in self.checkpoints:
            if number < 1 or number % self.step or (self.edits is not None and number > self.edits):
                most = "" if self.edits is None else f" up to task.edits={self.edits}"
                raise ConfigError(f"task.checkpoints: {number} is no multiple of task.step={self.step}{most}")

    def _cases(self, job: Job) -> ChosenCases:
        loaded = super()._cases(job)
        chosen = choose(
            loaded.items, edits=self.edits, order=self.order, contradictions=self.contradictions, seed=job.seed
        )
        if len(chosen.cases) < self.step:
            raise ConfigError(
                f"task.step: a step of {self.step} cases is larger than the {len(chosen.cases)} there are"
            )
        if chosen.contradictions:
            first = chosen.contradictions[0]
            what = "are edited too" if self.contradictions == "keep" else "are left out"
            log.warning(
                "%d cases contradict earlier ones and %s; the first: case %d %s",
                len(chosen.contradictions),
                what,
                first.case.case_id,
                first.reason,
            )
        values = {field: getattr(loaded, field) for field in ("rejected", "name", "path", "sha256")}
        return ChosenCases(items=chosen.cases, contradictions=chosen.contradictions, **values)

    def _done(self, folder: RunFolder, seed: int) -> set[int]:
        rows = {row["case_id"] for row in folder.rows()}
        # After the last step all cases are measured once more, so they count together.
        return rows if folder.status == "done" or len(rows) < (self.edits or len(rows)) else set()

    def _times(self, cases: int) -> float:
        return 1.0 + self.immediate + sum(self.checkpoints) / max(1, cases)

    def _facts(self, job: Job, lm: LanguageModel, loaded: Loaded[Case]) -> dict[str, Any]:
        found = loaded.contradictions if isinstance(loaded, ChosenCases) else ()
        listed = [{"case_id": each.case.case_id, "reason": each.reason} for each in found]
        return super()._facts(job, lm, loaded) | {"contradictions": listed}

    def _identity(self, job: Job, lm: LanguageModel, loaded: Loaded[Case], texts: Mapping[str, Any]) -> Identity:
        names = ("edits", "step", "order", "contradictions", "immediate")
        own = {name: getattr(self, name) for name in names} | {"checkpoints": list(self.checkpoints)}
        return super()._identity(job, lm, loaded, texts) | own | {"watch": fingerprint(self.watch)}

    def _results(self, folder: RunFolder, seed: int, not_tuned: Collection[str] = ()) -> LifelongResults:
        return LifelongResults(folder=folder, with_deltas=False, seed=seed, not_tuned=tuple(not_tuned))

    def _edit_pending(
        self, run: Run, runner: EditBatch, cases: Sequence[Case], report: Report, tracked: TrackedRun
    ) -> None:
        """Do the steps that are not done yet. A killed run goes on with the unit of work that it had begun."""
        steps = plan(
            cases,
            step=self.step,
            batch_size=self.batch_size,
            immediate=self.immediate,
            checkpoints=self.checkpoints,
        )
        watch = None
        if self.watch is not None:
            watch = WatchOfRun(watch=self.watch, run=run, lm=runner.lm, tracked=tracked)
        sequence = StepsOfRun(run=run, runner=runner, save_deltas=self.save_deltas, watch=watch)
        live = LiveSequence(tracked=tracked, sample=self._sample(cases, run.job), earlier=run.folder.rows())
        sequence.begin()
        for step in steps:
            report(step.edited_at - len(step.cases), len(cases))
            rows = sequence.do(step)
            live(rows, edits=step.edited_at, is_checkpoint=step.is_checkpoint)
            reason = "" if watch is None or step is steps[-1] else watch.reason_to_stop(step.edited_at)
            if reason:
                run.manifest["stopped"] = {"edits": step.edited_at, "reason": reason}
                log.warning("stopped after %d of %d edits: %s", step.edited_at, len(cases), reason)
                break

    def _summarize(self, run: Run, loaded: Loaded[Case], tracked: TrackedRun) -> Summary:
        rows = run.folder.rows()
        if not rows:
            aside = run.manifest["set_aside"]
            raise DataError(f"{loaded.path}: not one of {len(aside)} cases could be edited; the first: {aside[0]}")
        kept = self._results(run.folder, run.job.seed, run.manifest["settings_not_tuned"])
        summary = kept.write_sequence(rows, stopped=run.manifest.get("stopped"))
        own = {key: value for key, value in summary.items() if key not in LISTS}
        tracked.summary(flatten(own))
        last = [CaseResult.from_json(row) for row in rows if row["measured_at"] == summary["n_edits"]]
        report_texts(tracked, last, self._sample(loaded.items, run.job))
        report_sequence(tracked, FoundRun(path=run.folder.path, status="running", manifest=run.manifest))
        return summary

    def _outcome(self, run: Run, loaded: Loaded[Case], summary: Summary) -> Outcome:
        done = f"{summary.get('n_edits', 0)} edits by {self.editor.name}, {self.step} at a time"
        title = f"{title_of(run.manifest['model'])}, {loaded.name}, {done} (95 % half-width)"
        rows = [TableRow(label=UNEDITED, metrics=summary.get("pre", {}), edited=False)]
        parts = {"immediate": "right after", "final": "at the end"}
        rows += [TableRow(label=said, metrics=summary[part]) for part, said in parts.items() if part in summary]
        lines = run.closing_lines()
        if found := run.manifest.get("contradictions"):
            lines.append(f"contradictions: {len(found)}, named in {run.folder.path / 'manifest.json'}")
        lines += watch_lines(summary)
        return Outcome(tables=(rich_table(rows, title=title),), lines=lines, folder=run.folder.path)
