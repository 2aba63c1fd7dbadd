"""`task=localization`: does causal tracing say where a fact can be edited? (Hase et al. 2023; docs/method.md §14)"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from romexp.analysis.edit_scores import OUTCOMES, score_frame
from romexp.analysis.localization import Summary, check_installed, flatten_localization, localization_summary
from romexp.bounds import check_bounds
from romexp.cli.job import Job, Outcome
from romexp.cli.progress import bars
from romexp.data.dataset import Loaded
from romexp.editors.base import Editor, Resources
from romexp.errors import ConfigError, DataError
from romexp.facts import Case, check_cases
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.localization.earlier_runs import TraceRows, earlier_edits, earlier_traces
from romexp.localization.measured_edits import MeasuredEdits
from romexp.localization.methods import Methods, Settings
from romexp.localization.objectives import OBJECTIVES, Objective, check_objectives
from romexp.localization.traced import CaseTracer
from romexp.reporting.figures import localization as figures
from romexp.reporting.figures.traces import save
from romexp.reporting.tables.localization import localization_table
from romexp.results.find import FoundRun, find_runs
from romexp.results.identity import Identity, fingerprint, of_covariance
from romexp.results.localization_rows import localization_row_fault
from romexp.stats.covariance import Covariance
from romexp.tasks.edit import CaseSource
from romexp.tasks.kept_results import lost_rows
from romexp.tasks.live import LiveLocalization
from romexp.tasks.moments import second_moments
from romexp.tasks.run import Run, describe_inputs, model_identity, open_run, title_of
from romexp.tasks.trace_identity import tracer_identity
from romexp.tracing.noise import Noise, make_noise, reads_corpus
from romexp.tracing.tracer import Tracer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LocalizationExperiment:
    """Trace facts, edit each at several layers for several objectives, and ask how much of edit success the layer
    explains, how much tracing does, and how much tracing adds to the layer.

    Attributes:
        model: the model that is traced and edited.
        dataset: cases with true and new answers; facts that the model does not complete are counted and left out.
        tracer: how facts are traced; its corruption is noise, its metric the probability.
        kind: the states that tracing restores: `mlp`, `attn` or `hidden`.
        editors: the editors by method name.
        methods: the methods that are used, of `editors`.
        objectives: what edits are to do.
        layers: at which facts are edited; None takes all, or every `layer_step`-th and the last.
        layer_step: distance of the layers, if `layers` is None.
        window: number of layers that editors of several layers write, centred on the layer of the edit.
        settings: values of editors' fields that are other ones for an objective, by method and objective.
        outcome: the score that table and figures show.
        covariance: source of second moments, for editors that need them.
        results: folders with runs of `task=trace` and `task=edit` whose results are used; None looks in `outputs`.
        reuse: whether results of such runs are used.
        batch_size: number of facts between two writes to disk.
    """

    model: PretrainedModel
    dataset: CaseSource
    tracer: Tracer
    editors: Mapping[str, Editor]
    covariance: Covariance
    kind: str = "mlp"
    methods: Sequence[str] = ("rome", "ft", "ft_l", "memit")
    objectives: Sequence[Objective] = OBJECTIVES
    layers: Sequence[int] | None = None
    layer_step: int = 1
    window: int = 5
    settings: Settings = field(default_factory=dict)
    outcome: str = "rewrite"
    results: Sequence[str] | None = None
    reuse: bool = True
    batch_size: int = 5

    def __post_init__(self) -> None:
        check_bounds(self, "task", from_1=("layer_step", "window", "batch_size"))
        check_objectives(self.objectives)
        if self.kind not in ("hidden", "mlp", "attn"):
            raise ConfigError(f"task.kind: {self.kind!r} is none of hidden, mlp, attn")
        if self.outcome not in OUTCOMES:
            raise ConfigError(f"task.outcome: {self.outcome!r} is none of {', '.join(OUTCOMES)}")
        if unknown := [name for name in self.methods if name not in self.editors]:
            raise ConfigError(f"task.methods: {unknown[0]!r} is none of {', '.join(self.editors)} (task.editors)")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ConfigError("task.methods: expected at least one method, each once")
        if self.tracer.nodes != "states":
            raise ConfigError(
                f"task=localization traces states of layers: tracer.nodes=states, not {self.tracer.nodes}"
            )
        if reads_corpus(self.tracer.noise):
            raise ConfigError(f"task=localization estimates no noise from texts: tracer.noise is {self.tracer.noise!r}")
        if set(self.tracer.setting) - {"method"}:
            raise ConfigError(
                "task=localization asks how much of an answer's probability tracing restores after noise: it goes with "
                "tracer.corruption=noise, tracer.metric=probability, tracer.direction=denoise and normalized=false"
            )

    def __call__(self, job: Job) -> Outcome:
        """Trace and edit every fact that the run's folder does not hold yet; then make the regressions.

        Raises:
            RomexpError: the input is invalid, statsmodels is not installed, or the model knows none of the facts.
        """
        check_installed()
        methods = self._methods()
        loaded = self._cases()
        lm = job.load(self.model)
        layers = self._layers(lm)
        names = {"task": "localization", "model": lm.name, "dataset": job.choices["dataset"]}
        ids = [case.case_id for case in loaded.items]
        with open_run(
            job,
            names=names,
            identity=self._identity(job, lm, loaded, layers),
            facts=describe_inputs(job, lm, loaded),
            lacking=lambda folder, manifest: lost_rows(folder, manifest, ids, localization_row_fault),
        ) as run:
            if run.was_done and (summary := run.folder.read("summary")):
                return self._outcome(run, loaded, summary)
            group = f"{lm.name} {names['dataset']}"
            name = f"{group} localization {run.manifest['hash']}"
            with run.session(name=name, group=group, job_type="localization") as tracked:
                with bars(job.sweep) as bar:
                    measure = self._measured_edits(run, lm, methods, layers, report=bar("second moments"))
                    run.run_batches(
                        {case.case_id: case for case in loaded.items},
                        measure,
                        batch_size=self.batch_size,
                        report=bar("traces and edits"),
                        kind="fact",
                        fault=localization_row_fault,
                        live=LiveLocalization(tracked=tracked, rows=run.folder.good_rows(localization_row_fault)),
                    )
                summary, drawn = self._write(run, loaded, lm.name)
                tracked.summary(flatten_localization(summary))
                tracked.images({path.stem: path for path in drawn if path.suffix == ".png"})
            return self._outcome(run, loaded, summary)

    def _methods(self) -> Methods:
        chosen = {name: self.editors[name] for name in self.methods}
        settings = {
            name: values for name, values in self.settings.items() if name in chosen or name not in self.editors
        }
        return Methods(editors=chosen, width=self.window, settings=settings)

    def _cases(self) -> Loaded[Case]:
        loaded = self.dataset.load()
        check_cases(loaded.items, name=loaded.name, path=loaded.path, task="localization")
        return loaded

    def _layers(self, lm: LanguageModel) -> list[int]:
        """The layers of the edits, ascending."""
        if self.layers is None:
            return sorted({*range(0, lm.n_layers, self.layer_step), lm.n_layers - 1})
        if outside := [layer for layer in self.layers if not 0 <= layer < lm.n_layers]:
            raise ConfigError(f"task.layers: {outside[0]} is outside 0…{lm.n_layers - 1} of {lm.name!r}")
        return sorted(set(self.layers))

    @property
    def _own_tracer(self) -> Tracer:
        return replace(self.tracer, kinds=(self.kind,), severed=False, token_range="all")  # type: ignore[arg-type]

    def _identity(self, job: Job, lm: LanguageModel, loaded: Loaded[Case], layers: Sequence[int]) -> Identity:
        methods = self._methods()
        return {
            "task": "localization",
            "model": model_identity(lm, self.model),
            "dataset": {"sha256": loaded.sha256} | fingerprint(self.dataset, without=("path", "remote")),
            "tracer": tracer_identity(self._own_tracer),
            "editors": fingerprint(methods.editors),
            "settings": fingerprint(methods.settings),
            "objectives": list(self.objectives),
            "layers": list(layers),
            "window": self.window,
            "covariance": of_covariance(self.covariance),
            "seed": job.seed,
        }

    def _measured_edits(
        self, run: Run, lm: LanguageModel, given: Methods, layers: Sequence[int], *, report: Any
    ) -> MeasuredEdits:
        job = run.job
        noise = make_noise(lm, self.tracer.noise, subjects=self._subjects(), corpus=())
        run.manifest["noise"] = noise.describe()
        runs = self._runs(job)
        model = {"model": {"matmul_precision": None} | model_identity(lm, self.model)}
        traces = self._earlier_traces(runs, model, noise)
        same = model | {"covariance": of_covariance(self.covariance), "seed": job.seed}
        earlier = earlier_edits(runs, given, same=same)
        if traces or earlier.rows:
            log.info("of earlier runs %d traces and %d edits can be used", len(traces), len(earlier.rows))
        run.manifest["earlier"] = {"traces": len(traces), "edits": len(earlier.rows)}
        moments = second_moments(run, self.covariance, lm, report=report)
        resources = Resources(second_moment=moments, prepare=moments.prepare, cache_dir=job.cache_dir, seed=job.seed)
        moments.prepare(given.layers_of_moments(layers, n_layers=lm.n_layers))
        return MeasuredEdits(
            lm=lm,
            trace=CaseTracer(tracer=self._own_tracer, noise=noise, seed=job.seed, earlier=traces),
            methods=given.with_contexts(lm, resources),
            objectives=self.objectives,
            layers=layers,
            resources=resources,
            earlier=earlier,
        )

    def _subjects(self) -> Sequence[str]:
        """The subjects of the whole file, so that σ of the noise does not depend on the selection."""
        whole = replace(self.dataset, limit=None, offset=0, shard=None, case_ids=None)  # type: ignore[type-var]
        return [case.request.subject for case in whole.load().items]

    def _runs(self, job: Job) -> Sequence[FoundRun]:
        """Runs whose results may be used. Folders that cannot be read are named."""
        if not self.reuse:
            return ()
        roots = job.roots(self.results)
        found = find_runs(roots if self.results else [root for root in roots if root.is_dir()])
        for problem in found.problems:
            log.warning("not used: %s", problem)
        return found.runs

    def _earlier_traces(self, runs: Sequence[FoundRun], model: Identity, noise: Noise) -> TraceRows:
        tracer = tracer_identity(self._own_tracer)
        # A run may have traced other states too; what it has beside this grid does not matter.
        same = {
            name: value for name, value in tracer.items() if name not in ("kinds", "severed", "severed_second_draw")
        }
        return earlier_traces(runs, kind=self.kind, noise=noise.describe(), same=model | {"tracer": same})

    def _write(self, run: Run, loaded: Loaded[Case], model: str) -> tuple[Summary, list[Path]]:
        """Write summary, scores by edit, and figures, which are made from the rows."""
        rows = run.folder.good_rows(localization_row_fault)
        if not any(row["correct_prediction"] for row in rows):
            raise DataError(f"{loaded.path}: {model} completes none of {len(rows)} facts with the true answer")
        summary, frame = localization_summary(rows), score_frame(rows)
        run.folder.write("summary", summary)
        run.folder.write_parquet(frame)
        labels = {name: self.editors[name].name for name in self.methods}
        folder = run.folder.path / "figures"
        drawn = {
            f"tracing_{name}": figures.success_against_tracing(
                frame, name, label=labels[name], outcome=self.outcome, model=model
            )
            for name in self.methods
        } | {
            "layers": figures.layers_compared(summary, outcome=self.outcome, labels=labels, model=model),
            "explained": figures.explained_shares(summary, outcome=self.outcome, labels=labels, model=model),
        }
        paths = [path for name, figure in drawn.items() for path in save(figure, folder / name)]
        run.manifest["figures"] = sorted(path.name for path in paths)
        return summary, paths

    def _outcome(self, run: Run, loaded: Loaded[Case], summary: Summary) -> Outcome:
        title = f"{title_of(run.manifest['model'])}, {loaded.name}: does tracing say where to edit?"
        table = localization_table(summary, title=title, outcome=self.outcome)
        return Outcome(tables=(table,), lines=run.closing_lines(), folder=run.folder.path, inputs=(Path(loaded.path),))
