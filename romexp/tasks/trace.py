"""`task=trace`: traces known facts, or one sentence, causally (paper §2, App. B; docs/method.md §2)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romexp.analysis.trace_settings import setting_text
from romexp.analysis.traces import Pooling, flatten_trace, trace_summary
from romexp.cli.job import Job, Outcome
from romexp.cli.progress import Report, bars
from romexp.data.dataset import Loaded
from romexp.data.known import KnownFacts
from romexp.editors.traced_layer import knows_layer, remember_layer
from romexp.errors import ConfigError, DataError
from romexp.facts import KnownFact
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.reporting.figures.traces import save
from romexp.reporting.tables.traces import trace_table
from romexp.results.folder import RunFolder
from romexp.results.identity import Identity, fingerprint
from romexp.results.node_rows import node_row_fault
from romexp.results.rows import Row
from romexp.results.trace_rows import trace_row_fault
from romexp.tasks.kept_results import lost_rows
from romexp.tasks.live import LiveFacts
from romexp.tasks.planned import planned
from romexp.tasks.run import Run, describe_inputs, folder_path, model_identity, open_run, title_of
from romexp.tasks.trace_identity import tracer_identity
from romexp.tasks.trace_nodes import trace_nodes
from romexp.tasks.trace_results import kept_summary, trace_drawings
from romexp.tasks.traced_facts import FactTracer, check_traceable, subjects_of
from romexp.tasks.traced_nodes import NodeTracer
from romexp.tracing.noise import Noise, NoiseTexts, make_noise, reads_corpus
from romexp.tracing.tracer import Tracer
from romexp.tracking import TrackedRun

log = logging.getLogger(__name__)

NO_NOISE = "none: another subject takes the place of the subject"
"""What the manifest says of the noise of symmetric token replacement."""


@dataclass(frozen=True, kw_only=True)
class TraceExperiment:
    """Trace every known fact that the model completes correctly; then average the traces and draw figures.

    Attributes:
        model: the model that is traced.
        dataset: the facts. σ of the noise is measured over the subjects of the whole file, not only of selected facts.
        tracer: what is corrupted and restored.
        corpus: texts from which `m` and `t…` noise is estimated; other noise does not need them.
        prompt: one sentence to trace instead of the data set; `subject` must occur in it.
        subject: the subject of `prompt`.
        partner: for one sentence and `tracer.corruption=str`, the subject that takes the place of its own.
        batch_size: number of facts between two writes to disk; a killed run loses at most one such batch.
        gradients: number of points at which integrated gradients (Fig. 16) are evaluated; 0 leaves them out.
        pooling: how averages pool tokens and prompts (docs/method.md §2.4).
        heatmaps: number of facts, from the first one, for which a heat map is drawn.
    """

    model: PretrainedModel
    dataset: KnownFacts
    tracer: Tracer
    corpus: NoiseTexts
    prompt: str | None = None
    subject: str | None = None
    partner: str | None = None
    batch_size: int = 20
    gradients: int = 0
    pooling: Pooling = "prompt"
    heatmaps: int = 5

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.gradients < 0 or self.heatmaps < 0:
            raise ConfigError("task: batch_size must be at least 1, gradients and heatmaps at least 0")
        if (self.prompt is None) != (self.subject is None):
            raise ConfigError('task.prompt and task.subject go together: prompt="The … of X is" subject="X"')
        if self.subject is not None and not self.subject.strip():
            raise ConfigError("task.subject is empty; it must be a part of task.prompt")
        self._check_partner()
        if self.pooling == "authors" and self.tracer.setting:
            raise ConfigError(
                "task.pooling=authors averages as the paper does: it goes with the tracer's usual setting"
            )

    def _check_partner(self) -> None:
        wanted = self.prompt is not None and self.tracer.corruption == "str"
        if wanted and self.partner is None:
            raise ConfigError(
                "tracer.corruption=str: for one sentence, say which subject takes the place of its own: "
                'task.partner="…" (as many tokens; the model should answer otherwise)'
            )
        if self.partner is not None and not wanted:
            raise ConfigError("task.partner goes with a single prompt and tracer.corruption=str")

    def __call__(self, job: Job) -> Outcome:
        """Trace the facts that the run's folder does not hold yet; then average all of them.

        Raises:
            RomexpError: the input is invalid, another process is writing into the folder, or no fact could be traced.
        """
        if self.tracer.nodes != "states":
            return trace_nodes(self, job)
        loaded = self.facts()
        lm = job.load(self.model)
        self.check_sentence(lm, loaded)
        if self.tracer.severed and not self.tracer.traces_severed:
            log.info("severed paths are left out: they are traced with direction=denoise and method=exact")
        with self.open(job, lm, loaded) as run:
            if run.was_done:
                self._keep_results(run, lm)
                return self._outcome(run, loaded)
            setting = setting_text(self.tracer.setting)
            group = f"{lm.name} {run.manifest['names']['dataset']}" + (f" ({setting})" if setting else "")
            with run.session(name=f"{group} trace {run.manifest['hash']}", group=group, job_type="trace") as tracked:
                with bars(job.sweep) as bar:
                    self.trace_pending(run, lm, loaded.items, bar("causal traces"), tracked)
                if not run.folder.good_rows(self.row_fault):
                    reason = run.manifest["set_aside"][0]["reason"]
                    raise DataError(f"{loaded.path}: not one fact could be traced; the first: {reason}")
                summary, figures = self._write_results(run, lm)
                self._remember_layer(run, lm, summary)
                tracked.summary(flatten_trace(summary))
                tracked.images({path.stem: path for path in figures if path.suffix == ".png"})
            return self._outcome(run, loaded)

    def open(self, job: Job, lm: LanguageModel, loaded: Loaded[KnownFact]) -> AbstractContextManager[Run]:
        """The run in its folder; a finished one is taken up again where rows are lost.

        Raises:
            RomexpError: another process is writing into the folder, or it holds another run.
        """
        ids = [fact.known_id for fact in loaded.items]
        return open_run(
            job,
            names=self.names(job, lm),
            identity=self.identity(job, lm, loaded),
            facts=describe_inputs(job, lm, loaded),
            lacking=lambda folder, manifest: lost_rows(folder, manifest, ids, self.row_fault),
        )

    def plan(self, job: Job) -> Outcome:
        """What `dry_run` says (`romexp.tasks.planned`).

        Raises:
            RomexpError: the input is invalid.
        """
        loaded, lm = self.facts(), job.load(self.model)
        folder = RunFolder(folder_path(job, self.names(job, lm), self.identity(job, lm, loaded)))
        work = self._fact_tracer(self.noise(lm), seed=job.seed)
        return planned(
            lm,
            folder.path,
            {fact.known_id: fact for fact in loaded.items},
            lambda batch: work(lm, batch),
            done={row["case_id"] for row in folder.good_rows(self.row_fault)},
            batch_size=self.batch_size,
            kind="fact",
        )

    def names(self, job: Job, lm: LanguageModel) -> dict[str, str]:
        """Parts of the result folder's path."""
        dataset = job.choices["dataset"] if self.prompt is None else "prompt"
        return {"task": "trace", "model": lm.name, "dataset": dataset}

    def _write_results(self, run: Run, lm: LanguageModel) -> tuple[dict[str, Any], list[Path]]:
        """Write summary and figures, which are made from the rows, and return them."""
        rows = run.folder.good_rows(self.row_fault)
        summary = trace_summary(rows, pooling=self.pooling)
        run.folder.write("summary", summary)
        averages, heatmaps = self.prompt is None, self.heatmaps
        drawn = trace_drawings(
            rows, summary, window=self.tracer.width, model=lm.name, heatmaps=heatmaps, averages=averages
        )
        figures = [path for name, figure in drawn for path in save(figure, run.folder.path / "figures" / name)]
        run.manifest["figures"] = sorted(path.name for path in figures)
        return summary, figures

    def _keep_results(self, run: Run, lm: LanguageModel) -> None:
        """Make what a finished run lacks again from its rows: the summary, a figure, or the layer in the cache."""
        files = [run.folder.path / "figures" / name for name in run.manifest.get("figures", ())]
        lost = [file for file in files if not file.is_file() or not file.stat().st_size]
        summary = kept_summary(run.folder, pooling=self.pooling)
        if lost or summary is None:
            log.warning("%s: its summary or figures are missing or damaged: made again from rows", run.folder.path)
            summary, _ = self._write_results(run, lm)
        if not knows_layer(run.job.cache_dir, lm.digest):
            self._remember_layer(run, lm, summary)

    def _remember_layer(self, run: Run, lm: LanguageModel, summary: Mapping[str, Any]) -> None:
        # What is measured in another way suggests a layer too, but does not change what editor.layer=traced means.
        if self.prompt is not None or self.tracer.setting:
            return
        if (layer := summary["suggested_layer"]) is not None:
            remember_layer(run.job.cache_dir, lm.digest, layer=layer, source=run.folder.path)

    def check_sentence(self, lm: LanguageModel, loaded: Loaded[KnownFact]) -> None:
        """Make sure that the user's own sentence can be traced (`check_traceable`); nothing to do for a data set."""
        if self.prompt is not None:
            check_traceable(lm, loaded.items[0], partner=self.partner)

    def facts(self) -> Loaded[KnownFact]:
        """The facts that are traced: those of the data set, or the one sentence.

        Raises:
            ConfigError: the data set holds no known facts.
            DataError: it is empty.
        """
        if self.prompt is None or self.subject is None:
            loaded = self.dataset.load()
            if loaded.items and not isinstance(loaded.items[0], KnownFact):
                raise ConfigError(f"dataset: task=trace needs known facts (dataset=known), not {loaded.name}")
            if not loaded.items:
                raise DataError(f"{loaded.path}: no fact to trace")
            return loaded
        subjects_of(self.dataset)
        fact = KnownFact(known_id=0, subject=self.subject, attribute="", prompt=self.prompt)
        return Loaded(items=(fact,), rejected=(), name="prompt", path="prompt", sha256="")

    def identity(self, job: Job, lm: LanguageModel, loaded: Loaded[KnownFact]) -> Identity:
        """Everything that affects the result (docs/method.md §11.4)."""
        return {
            "task": "trace" if self.tracer.nodes == "states" else "trace_nodes",
            "model": model_identity(lm, self.model),
            "dataset": {"sha256": loaded.sha256} | fingerprint(self.dataset, without=("path", "remote")),
            "prompt": [self.prompt, self.subject],
            "tracer": tracer_identity(self.tracer),
            "gradients": self.gradients,
            "corpus": fingerprint(self.corpus) if self._draws and reads_corpus(self.tracer.noise) else None,
            "seed": job.seed if self.tracer.seed_per_case or not self._draws else None,
        } | {
            name: value
            for name, value, usual in (("pooling", self.pooling, "prompt"), ("partner", self.partner, None))
            if value != usual
        }

    @property
    def _draws(self) -> bool:
        """Whether the corruption draws noise."""
        return self.tracer.corruption == "noise"

    def noise(self, lm: LanguageModel) -> Noise | None:
        """The noise that the corruption draws; None if it draws none, or nothing is corrupted."""
        if not self._draws or self.tracer.nodes == "lens":
            return None
        subjects = subjects_of(self.dataset)
        return make_noise(lm, self.tracer.noise, subjects=subjects, corpus=self.corpus.texts())

    def _partners(self) -> Sequence[KnownFact]:
        """The facts from which other subjects are taken; none if the corruption needs none, or the user names it."""
        return () if self._draws or self.prompt is not None else self.dataset.whole()

    def trace_pending(
        self, run: Run, lm: LanguageModel, facts: Sequence[KnownFact], report: Report, tracked: TrackedRun
    ) -> None:
        """Append a row for every fact that has none, or list it in the manifest if it cannot be traced."""
        noise = self.noise(lm)
        run.manifest["noise"] = noise.describe() if noise else "none" if self._draws else NO_NOISE
        work = self._fact_tracer(noise, seed=run.job.seed)
        pooling = self.pooling if self.tracer.nodes == "states" else None
        run.run_batches(
            {fact.known_id: fact for fact in facts},
            lambda batch: work(lm, batch),
            batch_size=self.batch_size,
            report=report,
            kind="fact",
            fault=self.row_fault,
            quiet=self.prompt is not None,
            live=LiveFacts(tracked=tracked, pooling=pooling, rows=run.folder.good_rows(self.row_fault)),
        )

    def _fact_tracer(self, noise: Noise | None, *, seed: int) -> FactTracer:
        kind = FactTracer if self.tracer.nodes == "states" else NodeTracer
        return kind(
            tracer=self.tracer,
            noise=noise,
            pool=self._partners(),
            partner=self.partner,
            gradients=self.gradients,
            seed=seed,
        )

    def row_fault(self, row: Row) -> str:
        """What is wrong with a row of such a trace; empty if nothing is."""
        return trace_row_fault(row) if self.tracer.nodes == "states" else node_row_fault(row)

    def _outcome(self, run: Run, loaded: Loaded[KnownFact]) -> Outcome:
        summary = run.folder.read("summary") or {}
        rows = run.folder.good_rows(self.row_fault)
        title = f"{title_of(run.manifest['model'])}, {loaded.name}"
        tables = (trace_table(summary, rows, title=title),)
        inputs = (Path(loaded.path),) if self.prompt is None else ()
        return Outcome(tables=tables, lines=run.closing_lines(), folder=run.folder.path, inputs=inputs)
