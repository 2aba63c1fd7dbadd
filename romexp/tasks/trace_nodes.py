"""`task=trace tracer.nodes=heads|neurons|lens`: traces finer parts than states (docs/method.md §2.10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from romexp.analysis.trace_nodes import node_summary
from romexp.analysis.traces import traced
from romexp.cli.job import Job, Outcome
from romexp.cli.progress import bars
from romexp.data.dataset import Loaded
from romexp.errors import ConfigError, DataError
from romexp.facts import KnownFact
from romexp.reporting.figures.trace_nodes import average_figure, node_figure
from romexp.reporting.figures.traces import save
from romexp.reporting.tables.trace_nodes import node_table
from romexp.results.node_rows import node_row_fault
from romexp.tasks.run import Run, title_of

if TYPE_CHECKING:
    from romexp.tasks.trace import TraceExperiment


def trace_nodes(experiment: TraceExperiment, job: Job) -> Outcome:
    """Trace the facts that the run's folder does not hold yet; then average them and draw figures.

    Raises:
        RomexpError: the input is invalid, another process is writing into the folder, or no fact could be traced.
    """
    if experiment.gradients or experiment.pooling != "prompt":
        raise ConfigError("task.gradients and task.pooling=authors go with tracer.nodes=states")
    loaded = experiment.facts()
    lm = job.load(experiment.model)
    experiment.check_sentence(lm, loaded)
    with experiment.open(job, lm, loaded) as run:
        if run.was_done and (kept := run.folder.read("summary")) is not None:
            return _outcome(run, loaded, kept)
        nodes = experiment.tracer.nodes
        group = f"{lm.name} {run.manifest['names']['dataset']} {nodes}"
        with run.session(name=f"{group} {run.manifest['hash']}", group=group, job_type="trace") as tracked:
            with bars(job.sweep) as bar:
                experiment.trace_pending(run, lm, loaded.items, bar(nodes), tracked)
            summary, drawn = _write(experiment, run, loaded, lm.name)
            tracked.summary({"n": float(summary["n"]), "n_incorrect": float(summary["n_incorrect"])})
            tracked.images({path.stem: path for path in drawn if path.suffix == ".png"})
        return _outcome(run, loaded, summary)


def _write(
    experiment: TraceExperiment, run: Run, loaded: Loaded[KnownFact], model: str
) -> tuple[Mapping[str, Any], Sequence[Path]]:
    """Write summary and figures, which are made from the rows."""
    rows = run.folder.good_rows(experiment.row_fault)
    if not traced(rows):
        aside = run.manifest.get("set_aside")
        why = aside[0]["reason"] if aside else "the model completes none of them with its attribute"
        raise DataError(f"{loaded.path}: not one fact could be traced; {why}")
    summary = node_summary(rows)
    run.folder.write("summary", summary)
    drawn = {
        f"{row['nodes']}_{row['case_id']}": node_figure(row, model=model) for row in traced(rows)[: experiment.heatmaps]
    }
    if summary["n"] > 1 and (average := average_figure(summary, model=model)) is not None:
        drawn[f"average_{summary['nodes']}"] = average
    folder = run.folder.path / "figures"
    paths = [path for name, figure in drawn.items() for path in save(figure, folder / name)]
    run.manifest["figures"] = sorted(path.name for path in paths)
    return summary, paths


def _outcome(run: Run, loaded: Loaded[KnownFact], summary: Mapping[str, Any]) -> Outcome:
    title = f"{title_of(run.manifest['model'])}, {loaded.name}: {summary['nodes']}"
    tables = (node_table(summary, run.folder.good_rows(node_row_fault), title=title),)
    inputs = (Path(loaded.path),) if loaded.sha256 else ()
    return Outcome(tables=tables, lines=run.closing_lines(), folder=run.folder.path, inputs=inputs)
