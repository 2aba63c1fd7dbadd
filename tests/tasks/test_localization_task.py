"""task=localization: rows, summary, figures, resuming, and results of other runs that it uses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live_points import metrics
from test_trace_task import job

from romexp.analysis.localization import flatten_localization
from romexp.cli.job import Job
from romexp.data.corpora import TextCorpus
from romexp.data.counterfact import CounterFact
from romexp.editors.finetune import FineTune
from romexp.editors.rome.editor import Rome
from romexp.errors import ConfigError, DataError
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.minifact import assets
from romexp.results.folder import RunFolder
from romexp.results.localization_rows import localization_row_fault
from romexp.tasks.localization import LocalizationExperiment
from romexp.tracing.tracer import Tracer
from romexp.trackers.csv_files import CsvTracker

pytest.importorskip("statsmodels")
__all__ = ["job"]  # a fixture


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Three facts that the model knows, and one whose true answer it does not say."""
    found: list[dict[str, Any]] = json.loads(assets.counterfact_path().read_text())[:3]
    unknown = json.loads(json.dumps(found[0]))
    unknown["case_id"] = 900
    unknown["requested_rewrite"]["target_true"]["str"] = "nonsense"
    path = tmp_path / "records.json"
    path.write_text(json.dumps([*found, unknown]))
    return path


def study(records: Path, **changes: Any) -> LocalizationExperiment:
    contexts = ["{}", "He said so. {}"]
    settings: dict[str, Any] = {
        "model": PretrainedModel(path=str(assets.model_dir()), name="minifact"),
        "dataset": CounterFact(path=str(records), remote=None),
        "tracer": Tracer(samples=2, window=3),
        "editors": {
            "rome": Rome(v_num_grad_steps=5, mom2_adjustment=False, clamp_norm_factor=6.0, context_templates=contexts),
            "ft": FineTune(num_steps=4, teacher_forcing=True),
        },
        "covariance": None,
        "methods": ("rome", "ft"),
        "layers": (1, 5),
        "batch_size": 2,
    }
    return LocalizationExperiment(**(settings | changes))


def rows_of(job: Job) -> list[dict[str, Any]]:
    assert job.output_dir
    return RunFolder(job.output_dir).rows()


def test_rows_summary_and_figures(records: Path, job: Job, minifact_lm: LanguageModel) -> None:
    outcome = study(records)(replace(job, tracker=CsvTracker()))
    rows = rows_of(job)
    assert [row["correct_prediction"] for row in rows] == [True, True, True, False]
    assert job.output_dir
    shown = metrics(job.output_dir)
    assert (shown["n_facts"].tolist(), shown["n_known"].tolist()) == ([2, 4], [2, 3])
    last = flatten_localization(RunFolder(job.output_dir).read("summary") or {})
    assert shown.iloc[-1][list(last)].to_dict() == last
    assert not any(map(localization_row_fault, rows))
    first = rows[0]
    assert len(first["fraction"]) == minifact_lm.n_layers
    assert max(first["fraction"]) > 0.05
    done = {(e["method"], e["objective"], e["layer"]) for e in first["edits"]}
    objectives = {e["objective"] for e in first["edits"]} | set(first.get("skipped", {}))
    assert len(objectives) == 5
    assert len(done) == 4 * (5 - len(first.get("skipped", {})))
    by_objective = {e["objective"]: e["rewrite"] for e in first["edits"] if (e["method"], e["layer"]) == ("rome", 1)}
    assert by_objective["error_injection"][1] > by_objective["error_injection"][0] + 0.1
    assert by_objective["erasure"][1] < by_objective["erasure"][0] - 0.1
    assert by_objective["erasure"][0] == by_objective["amplification"][0]
    # With a noised subject the true answer is less likely, and the edit brings it back.
    assert by_objective["forcing"][0] < by_objective["erasure"][0] - 0.1
    assert by_objective["forcing"][1] > by_objective["forcing"][0]
    summary = RunFolder(job.output_dir).read("summary") or {}
    assert (summary["n_known"], summary["n_facts"]) == (3, 4)
    shares = [s["r2_both"] for s in summary["studies"] if s["outcome"] == "rewrite"]
    assert len(shares) == 10
    assert all(0 <= share <= 1 for share in shares if share is not None)
    names = {path.stem for path in (job.output_dir / "figures").glob("*.png")}
    assert names == {"tracing_rome", "tracing_ft", "layers", "explained"}
    assert outcome.tables


def test_a_killed_study_goes_on(records: Path, job: Job) -> None:
    small = study(records, methods=("ft",), objectives=("error_injection", "forcing"), layers=(1,), batch_size=1)
    small(job)
    whole = rows_of(job)
    assert job.output_dir
    folder = RunFolder(job.output_dir)
    lines = folder.cases.read_text().splitlines(keepends=True)
    folder.cases.write_text("".join(lines[:2]) + lines[2][:40])
    folder.set_status("running")
    small(job)
    assert rows_of(job) == whole
    untouched = folder.cases.stat().st_mtime_ns
    small(job)
    assert folder.cases.stat().st_mtime_ns == untouched


def test_runs_that_exist_are_used(records: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces and edits of other tasks give the rows that the study itself would make, and are not made again."""
    from romexp.data.known import KnownFacts
    from romexp.tasks.trace import TraceExperiment

    known = [
        {
            "known_id": record["case_id"],
            "subject": (asked := record["requested_rewrite"])["subject"],
            "attribute": asked["target_true"]["str"],
            "prompt": asked["prompt"].replace("{}", asked["subject"]),
            "template": asked["prompt"],
        }
        for record in json.loads(records.read_text())
    ]
    facts = records.with_name("known.json")
    facts.write_text(json.dumps(known))
    small = study(records, methods=("ft",), objectives=("error_injection",), layers=(1,))
    small(replace(job, output_dir=job.outputs.parent / "alone"))
    alone = rows_of(replace(job, output_dir=job.outputs.parent / "alone"))
    trace = TraceExperiment(
        model=small.model,
        dataset=KnownFacts(path=str(facts)),
        tracer=small.tracer,
        corpus=TextCorpus(path=str(assets.corpus_path()), unit="line"),
        heatmaps=0,
    )
    trace(replace(job, output_dir=None))
    edit_run(small, job)

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it is there already")

    monkeypatch.setattr(FineTune, "__call__", fails)
    monkeypatch.setattr("romexp.tracing.tracer.trace_batch", fails)
    small(job)
    for own, other in zip(rows_of(job), alone, strict=True):
        assert own["case_id"] == other["case_id"]
        if own["correct_prediction"]:
            assert own["fraction"] == pytest.approx(other["fraction"], abs=1e-6)
            assert own["edits"][0]["rewrite"] == pytest.approx(other["edits"][0]["rewrite"], abs=1e-5)
    assert job.output_dir
    assert (RunFolder(job.output_dir).read("manifest") or {})["earlier"] == {"traces": 3, "edits": 4}
    with pytest.raises(AssertionError):  # control
        replace(small, reuse=False)(replace(job, output_dir=job.outputs.parent / "again"))


def edit_run(small: LocalizationExperiment, job: Job) -> None:
    """The same edits by task=edit."""
    from romexp.evaluation.counterfact import CounterFactEvaluator
    from romexp.tasks.edit import EditExperiment

    edit = EditExperiment(
        model=small.model,
        dataset=small.dataset,
        editor=replace(small.editors["ft"], layer=1),  # type: ignore[type-var]
        covariance=small.covariance,
        evaluator=CounterFactEvaluator(generation="off"),
        references=None,  # type: ignore[arg-type]
    )
    choices = {"dataset": "counterfact", "model": "minifact", "editor": "ft"}
    edit(replace(job, output_dir=None, choices=choices))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ("kn",)}, r"task\.methods"),
        ({"objectives": ("erasing",)}, r"task\.objectives"),
        ({"kind": "heads"}, r"task\.kind"),
        ({"outcome": "fluency"}, r"task\.outcome"),
        ({"layer_step": 0}, r"task\.layer_step"),
        ({"tracer": Tracer(metric="kl")}, r"tracer\.metric"),
        ({"tracer": Tracer(nodes="heads")}, "nodes"),
        ({"tracer": Tracer(noise="m")}, r"tracer\.noise"),
    ],
)
def test_what_makes_no_sense_is_refused(records: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        study(records, **changes)


def test_layers_that_the_model_lacks_and_facts_that_it_does_not_know(records: Path, job: Job) -> None:
    with pytest.raises(ConfigError, match=r"task\.layers: 8"):
        study(records, layers=(8,))(job)
    unknown = CounterFact(path=str(records), remote=None, case_ids=[900])
    with pytest.raises(DataError, match="none of 1 facts"):
        study(records, dataset=unknown, objectives=("erasure",))(job)
