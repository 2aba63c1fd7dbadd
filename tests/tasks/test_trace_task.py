from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from live_points import metrics

from romexp.analysis.traces import flatten_trace, trace_summary
from romexp.cli.job import Job
from romexp.data.corpora import TextCorpus
from romexp.data.known import KnownFacts
from romexp.editors.none import NoEdit
from romexp.editors.rome.editor import Rome
from romexp.editors.traced_layer import remember_layer, traced_layer, with_traced_layer
from romexp.errors import ConfigError, DataError
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.minifact import assets
from romexp.results.folder import RunFolder
from romexp.tasks.trace import TraceExperiment
from romexp.tracing.tracer import Tracer
from romexp.trackers.csv_files import CsvTracker
from romexp.tracking import NoTracker, WandbTracker


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(
        config={},
        choices={"dataset": "minifact_known", "model": "minifact", "editor": "none"},
        tracker=NoTracker(),
        outputs=tmp_path / "outputs",
        output_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        seed=0,
    )


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    """Six facts that the model knows, then one that it does not and one without its subject."""
    records = json.loads(assets.known_path().read_text())[:6]
    records.append({**records[0], "known_id": 900, "attribute": "nonsense"})
    records.append({**records[1], "known_id": 901, "prompt": "Somebody else plays the"})
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(records))
    return path


def experiment(facts: Path, **changes: object) -> TraceExperiment:
    settings: dict[str, object] = {
        "model": PretrainedModel(path=str(assets.model_dir()), name="minifact"),
        "dataset": KnownFacts(path=str(facts)),
        "tracer": Tracer(samples=2, window=3),
        "corpus": TextCorpus(path=str(assets.corpus_path()), unit="line"),
        "batch_size": 3,
        "heatmaps": 1,
    }
    return TraceExperiment(**(settings | changes))  # type: ignore[arg-type]


def rows_of(job: Job) -> list[dict]:
    assert job.output_dir
    return [json.loads(line) for line in (job.output_dir / "cases.jsonl").read_text().splitlines()]


def check_points(job: Job) -> None:
    """What the tracker got of the 7 facts that have rows, 3 at a time."""
    assert job.output_dir
    shown, summary = metrics(job.output_dir), RunFolder(job.output_dir).read("summary") or {}
    assert shown["n_facts"].tolist() == [3, 6, 7]
    assert (shown["n"].tolist(), shown["n_incorrect"].tolist()) == ([3, 6, 6], [0, 0, 1])
    assert shown["ate"].tolist()[-1] == summary["ate"]["mean"] != shown["ate"][0]
    assert shown["peak/mlp"].tolist()[-1] == summary["peaks"]["mlp"]["aie"]
    pictures = pd.read_csv(job.output_dir / "csv" / "images.csv")
    assert "average_heatmaps" in set(pictures["name"])
    assert all(Path(path).is_file() for path in pictures["path"])


def test_rows_summary_and_figures(facts: Path, job: Job, minifact_lm: LanguageModel) -> None:
    outcome = experiment(facts, gradients=4)(replace(job, tracker=CsvTracker()))
    rows = rows_of(job)
    check_points(job)
    assert [row["correct_prediction"] for row in rows] == [True] * 6 + [False]
    assert [row.get("completion_tokens") for row in rows] == [1] * 6 + [None]
    first = rows[0]
    shape = (len(first["tokens"]), minifact_lm.n_layers)
    for kind in ("hidden", "mlp", "attn"):
        assert (len(first[kind]), len(first[kind][0])) == shape
    assert len(first["severed_mlp"]) == minifact_lm.n_layers
    assert len(first["integrated_gradients"]) == shape[0]
    assert "hidden" not in rows[6]
    assert "".join(first["tokens"]).strip() == first["prompt"]
    assert job.output_dir
    summary = json.loads((job.output_dir / "summary.json").read_text())
    assert (summary["n"], summary["n_incorrect"]) == (6, 1)
    manifest = json.loads((job.output_dir / "manifest.json").read_text())
    (rejected,) = manifest["rejected"]
    assert rejected["index"] == 7
    assert "subject" in rejected["reason"]
    assert any("set aside: 1" in line for line in outcome.lines)
    names = {path.name for path in (job.output_dir / "figures").iterdir()}
    assert {"average_heatmaps.pdf", "average_lines.png", "severed.png"} <= names
    assert {f"trace_{first['case_id']}.pdf", f"gradients_{first['case_id']}.png"} <= names
    assert (job.output_dir / "status").read_text().strip() == "done"
    # Editing can now ask for the traced layer.
    assert traced_layer(job.cache_dir, minifact_lm.digest) == summary["suggested_layer"]


def test_resuming_equals_one_go(facts: Path, job: Job, minifact_lm: LanguageModel) -> None:
    experiment(facts)(job)
    whole = rows_of(job)
    assert job.output_dir
    cases, status = job.output_dir / "cases.jsonl", job.output_dir / "status"
    lines = cases.read_text().splitlines(keepends=True)
    cases.write_text("".join(lines[:2]) + lines[2][:40])  # killed while writing the third row
    status.write_text("running\n")
    experiment(facts)(job)
    again = rows_of(job)
    assert [row["case_id"] for row in again] == [row["case_id"] for row in whole]
    for a, b in zip(whole, again, strict=True):
        assert a.keys() == b.keys()
        if "hidden" in a:
            np.testing.assert_allclose(a["hidden"], b["hidden"], atol=1e-5)


def test_shards_together_are_the_whole(facts: Path, job: Job, minifact_lm: LanguageModel) -> None:
    experiment(facts)(job)
    whole = {row["case_id"]: row for row in rows_of(job)}
    merged: list[dict] = []
    for part in ("1/2", "2/2"):
        shard = replace(job, output_dir=job.outputs / part.replace("/", "_"))
        experiment(facts, dataset=KnownFacts(path=str(facts), shard=part))(shard)
        merged += rows_of(shard)
        assert 0 < len(rows_of(shard)) < len(whole)
    assert sorted(row["case_id"] for row in merged) == sorted(whole)
    for row in merged:
        same = whole[row["case_id"]]
        assert row.keys() == same.keys()
        for name in row.keys() & {"low_score", "hidden", "mlp", "attn", "severed_mlp", "severed_attn"}:
            np.testing.assert_allclose(row[name], same[name], atol=1e-5)
    # Averages over rows put together are those of the whole run.
    assert job.output_dir
    summary = json.loads((job.output_dir / "summary.json").read_text())
    assert flatten_trace(trace_summary(merged)) == pytest.approx(flatten_trace(summary), abs=1e-5)


def test_wandb_holds_the_total_effect_the_peaks_and_the_figures(
    facts: Path, job: Job, minifact_lm: LanguageModel
) -> None:
    experiment(facts)(replace(job, tracker=WandbTracker(mode="offline")))
    assert job.output_dir
    (run,) = (job.output_dir / "wandb").glob("offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(run), "--summary"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["summary"]
    summary = json.loads((job.output_dir / "summary.json").read_text())
    assert found["ate"] == pytest.approx(summary["ate"]["mean"])
    for kind in ("hidden", "mlp", "attn"):
        assert found[f"peak/{kind}"] == pytest.approx(summary["peaks"][kind]["aie"])
        assert found[f"peak/{kind}_layer"] == summary["peaks"][kind]["layer"]
        early = summary["groups"]["last subject token"][kind]["mean"]
        assert found[f"last_subject/{kind}"] == pytest.approx(max(early)) == early[found[f"last_subject/{kind}_layer"]]
    assert found["suggested_layer"] == summary["suggested_layer"]
    pictures = {path.stem for path in (run / "files").rglob("*.png")}
    assert any(name.startswith("average_heatmaps") for name in pictures)


def test_the_records_template_says_where_the_subject_stands(facts: Path, job: Job, minifact_lm: LanguageModel) -> None:
    record = json.loads(facts.read_text())[0]
    subject = record["subject"]
    twice = {"prompt": f"{subject} and {record['prompt']}", "attribute": "nonsense"}
    templates = {0: "", 1: f"{subject} and {record['template']}"}
    facts.write_text(json.dumps([record | twice | {"known_id": i, "template": t} for i, t in templates.items()]))
    experiment(facts, tracer=Tracer(samples=1, kinds=[], severed=False))(job)
    first, second = (row["subject_range"] for row in rows_of(job))
    assert first[0] == 0
    assert second[0] > first[1]


def test_one_sentence(facts: Path, job: Job, minifact_lm: LanguageModel) -> None:
    fact = json.loads(facts.read_text())[0]
    outcome = experiment(facts, prompt=fact["prompt"], subject=fact["subject"])(job)
    (row,) = rows_of(job)
    assert row["answer"].strip() == fact["attribute"]
    assert outcome.tables
    assert not (job.cache_dir / "traced_layers").exists()  # one sentence suggests nothing


def test_without_any_kind_the_total_effect_alone(facts: Path, job: Job, minifact_lm: LanguageModel) -> None:
    experiment(facts, tracer=Tracer(samples=2, kinds=[], severed=False))(job)
    assert job.output_dir
    summary = json.loads((job.output_dir / "summary.json").read_text())
    assert (summary["n"], summary["groups"], summary["suggested_layer"]) == (6, {}, None)
    assert summary["ate"]["mean"] > 0.1
    assert not (job.output_dir / "figures").exists()


def test_sigma_does_not_depend_on_the_selection(facts: Path, job: Job, minifact_lm: LanguageModel) -> None:
    experiment(facts, dataset=KnownFacts(path=str(facts), limit=1))(job)
    (one,) = rows_of(job)
    other = replace(job, output_dir=job.outputs / "other")
    experiment(facts)(other)
    assert one["low_score"] == pytest.approx(rows_of(other)[0]["low_score"], abs=1e-6)


def test_a_sentence_without_its_subject_is_one_clear_error(
    facts: Path, job: Job, minifact_lm: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DataError, match=r"^task\.prompt: subject 'Nobody' does not occur in 'Somebody plays the'$"):
        experiment(facts, prompt="Somebody plays the", subject="Nobody")(job)
    with pytest.raises(DataError, match=r"^task\.prompt: a text of \d+ tokens"):
        experiment(facts, prompt="Somebody plays the" + " far" * 200, subject="Somebody")(job)
    assert job.output_dir
    assert not job.output_dir.exists(), "a mistake leaves no failed run"
    assert not [record for record in caplog.records if record.levelname == "WARNING"]  # said once
    with pytest.raises(ConfigError, match="subject is empty"):
        experiment(facts, prompt="Somebody plays the", subject=" ")
    with pytest.raises(ConfigError, match="go together"):
        experiment(facts, prompt="Somebody plays the")


def test_facts_of_which_none_can_be_traced(
    facts: Path, tmp_path: Path, job: Job, minifact_lm: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads(facts.read_text())[0]
    facts.write_text(json.dumps([{**record, "prompt": record["prompt"] + " far" * 200}]))
    with pytest.raises(DataError, match=r"not one fact could be traced; the first: a text of \d+ tokens"):
        experiment(facts)(job)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith(f"fact {record['known_id']} set aside: prompt: a text of")


def test_an_editor_takes_the_traced_layer(tmp_path: Path) -> None:
    remember_layer(tmp_path, "d", layer=2, source=tmp_path)
    assert with_traced_layer(Rome(layer="traced"), tmp_path, "d").layer == 2
    assert with_traced_layer(Rome(layer=1), tmp_path, "d") == Rome(layer=1)
    assert with_traced_layer(NoEdit(), tmp_path, "d") == NoEdit()


def test_asking_for_a_traced_layer_before_tracing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task=trace"):
        traced_layer(tmp_path, "0" * 16)


def test_what_a_finished_trace_lost_is_made_again(facts: Path, job: Job, minifact_lm: LanguageModel) -> None:
    """Also the layer for `editor.layer=traced`: the error that misses it says to run this task."""
    run = experiment(facts, tracer=Tracer(samples=1, window=3))
    run(job)
    assert job.output_dir
    layer = traced_layer(job.cache_dir, minifact_lm.digest)
    summary = (job.output_dir / "summary.json").read_bytes()
    before = (job.output_dir / "cases.jsonl").read_bytes()
    (stored,) = (job.cache_dir / "traced_layers").iterdir()
    for damage in ("{}", "[" * 9000, '{"layer": "3"}', ""):
        stored.write_text(damage)
        with pytest.raises(ConfigError, match=r"editor.layer=traced: .*json is damaged; run romexp task=trace"):
            traced_layer(job.cache_dir, minifact_lm.digest)
    (job.output_dir / "summary.json").write_text('{"n": 5}')
    (job.output_dir / "figures" / "severed.png").unlink()
    run(job)
    assert traced_layer(job.cache_dir, minifact_lm.digest) == layer
    assert (job.output_dir / "summary.json").read_bytes() == summary
    assert (job.output_dir / "figures" / "severed.png").is_file()
    assert (job.output_dir / "cases.jsonl").read_bytes() == before

    lines = [json.loads(line) for line in before.splitlines()]
    del lines[0]["low_score"]
    (job.output_dir / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(job)
    assert len(rows_of(job)) == len(lines) + 1  # the damaged row and the one that replaces it
    assert json.loads((job.output_dir / "summary.json").read_text())["n"] == 6
