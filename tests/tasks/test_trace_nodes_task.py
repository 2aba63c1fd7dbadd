"""task=trace tracer.nodes=heads|neurons|lens: rows, summary, figures, and what a second run does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_trace_task import experiment, facts, job, rows_of

from romexp.cli.job import Job
from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel
from romexp.results.folder import RunFolder
from romexp.results.node_rows import node_row_fault
from romexp.tracing.tracer import Tracer

__all__ = ["facts", "job"]  # fixtures


@pytest.mark.parametrize(("nodes", "figures"), [("heads", 2), ("neurons", 1), ("lens", 2)])
def test_rows_summary_and_figures(facts: Path, job: Job, minifact_lm: LanguageModel, nodes: str, figures: int) -> None:
    tracer = Tracer(nodes=nodes, samples=2, usual_window=3, top=4)  # type: ignore[arg-type]
    outcome = experiment(facts, tracer=tracer)(job)
    rows = rows_of(job)
    assert [row["correct_prediction"] for row in rows] == [True] * 6 + [False]
    assert not any(map(node_row_fault, rows))
    assert node_row_fault({**rows[0], nodes: None})  # control
    assert job.output_dir
    folder = RunFolder(job.output_dir)
    summary = folder.read("summary") or {}
    assert (summary["n"], summary["n_incorrect"], summary["nodes"]) == (6, 1, nodes)
    assert len(list((job.output_dir / "figures").glob("*.png"))) == figures
    assert outcome.tables
    if nodes == "lens":  # the model says the answer at the end, and not from the first layer on
        said = summary["lens"]["last token"]["first"]
        assert said[-1] == 1 > said[0]
    before = folder.cases.stat().st_mtime_ns
    experiment(facts, tracer=tracer)(job)
    assert folder.cases.stat().st_mtime_ns == before


def test_integrated_gradients_belong_to_states(facts: Path, job: Job) -> None:
    with pytest.raises(ConfigError, match=r"nodes=states"):
        experiment(facts, tracer=Tracer(nodes="lens"), gradients=3)(job)


@pytest.mark.parametrize("nodes", ["states", "lens"])
def test_a_plan_is_that_of_the_run(facts: Path, job: Job, minifact_lm: LanguageModel, nodes: str) -> None:
    """Its folder, and the facts that are left in it."""
    task = experiment(facts, tracer=Tracer(nodes=nodes, samples=1, usual_window=3, severed=False))  # type: ignore[arg-type]
    own = replace(job, output_dir=None)
    before = task.plan(own)
    assert before.lines[1] == "left: 7 of 7 facts"
    outcome = task(own)
    assert before.lines[0] == f"results: {outcome.folder}"
    assert task.plan(own).lines[1] == "left: 0 of 7 facts"
