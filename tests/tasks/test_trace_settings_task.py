"""task=trace in other settings than the paper's: what it says, what it resumes, what it is called."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_trace_task import experiment, facts, job, rows_of

from romexp.analysis.traces import flatten_trace, trace_summary
from romexp.cli.job import Job
from romexp.compose import compose_config
from romexp.data.known import KnownFacts
from romexp.errors import ConfigError, DataError
from romexp.lm.model import LanguageModel
from romexp.minifact import assets
from romexp.results.identity import digest
from romexp.tasks.trace_identity import tracer_identity
from romexp.tracing.tracer import Tracer

__all__ = ["facts", "job"]  # fixtures

OTHER = Tracer(usual_window=3, corruption="str", metric="logit_difference", method="screen", share=0.1)


@pytest.fixture
def more_facts(tmp_path: Path) -> Path:
    """Forty facts, so that some have partners; and one of a relation of its own."""
    records = json.loads(assets.known_path().read_text())[:40]
    records[3]["relation_id"] = "lonely"
    path = tmp_path / "more.json"
    path.write_text(json.dumps(records))
    return path


def test_names_of_the_usual_setting_are_what_they_were() -> None:
    assert digest(tracer_identity(Tracer(samples=3, window=3))) == digest(USUAL)
    assert digest(tracer_identity(Tracer(samples=3, usual_window=3))) == digest(USUAL)
    config = compose_config(["task=trace", "tracer.samples=3"]).tracer
    assert (config.window, config.usual_window) == (None, 3)


USUAL = {
    "type": "Tracer", "noise": "s3", "samples": 3, "kinds": ["hidden", "mlp", "attn"], "window": 3,
    "window_convention": "code", "token_range": "all", "severed": True, "severed_second_draw": False,
    "replace": False, "replace_in_low_score": False, "extra_token": 0, "seed_per_case": False,
}  # fmt: skip
"""What the manifest of a run said before there were other settings."""


def test_only_what_matters_gives_another_name() -> None:
    def name(**settings: object) -> str:
        return digest(tracer_identity(Tracer(**settings)))  # type: ignore[arg-type]

    different = [
        {}, {"corruption": "str"}, {"metric": "kl"}, {"direction": "noise"}, {"method": "attribution"},
        {"method": "screen"}, {"method": "screen", "share": 0.1}, {"method": "screen", "points": 3},
        {"method": "attribution", "points": 3}, {"normalized": True}, {"method": "screen", "at_least": 0.1},
        {"method": "screen", "at_least": 0.2}, {"method": "screen", "at_least": {"mlp": 0.2}},
    ]  # fmt: skip
    assert len({name(**settings) for settings in different}) == len(different)
    assert name(method="attribution", share=0.3) == name(method="attribution")
    assert name(method="screen", at_least=0.1, share=0.3) == name(method="screen", at_least=0.1)
    assert name(method="screen", direction="noise", points=3) == name(method="screen", direction="noise")
    assert name(corruption="str", samples=3) == name(corruption="str")
    assert name(method="attribution", severed=False) == name(method="attribution")
    assert name(direction="noise", severed=False) == name(direction="noise")
    assert name(severed=False) != name()


def test_a_run_says_its_setting_and_names_facts_without_a_partner(
    more_facts: Path, job: Job, minifact_lm: LanguageModel
) -> None:
    outcome = experiment(more_facts, tracer=OTHER, dataset=KnownFacts(path=str(more_facts), limit=6))(job)
    rows = rows_of(job)
    assert [row["case_id"] for row in rows] == [0, 1, 2, 4, 5]
    assert {json.dumps(row["setting"]) for row in rows} == {
        json.dumps({"corruption": "str", "metric": "logit_difference", "method": "screen"})
    }
    assert all(row["partner"] and row["foil"].strip() and row["exact_mlp"] for row in rows)
    assert all(row["high_score"] > row["low_score"] for row in rows)
    assert job.output_dir
    manifest = json.loads((job.output_dir / "manifest.json").read_text())
    (aside,) = manifest["set_aside"]
    assert aside["case_id"] == 3
    assert "relation lonely" in aside["reason"]
    assert any("set aside: 1" in line for line in outcome.lines)
    assert "metric=logit_difference" in str(outcome.tables[0].title)
    assert not (job.cache_dir / "traced_layers").exists()  # editor.layer=traced means the paper's setting


def test_resuming_and_shards_equal_one_go(
    more_facts: Path, job: Job, minifact_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("romexp.tasks.trace.trace_drawings", lambda *_, **__: [])  # figures take most of the time
    some = KnownFacts(path=str(more_facts), limit=6)
    experiment(more_facts, tracer=OTHER, dataset=some)(job)
    whole = {row["case_id"]: row for row in rows_of(job)}
    assert job.output_dir
    cases = job.output_dir / "cases.jsonl"
    cases.write_text("".join(cases.read_text().splitlines(keepends=True)[:2]))
    (job.output_dir / "status").write_text("running\n")
    experiment(more_facts, tracer=OTHER, dataset=some)(job)
    again = rows_of(job)
    merged: list[dict] = []
    for part in ("1/2", "2/2"):
        shard = replace(job, output_dir=job.outputs / part.replace("/", "_"))
        experiment(more_facts, tracer=OTHER, dataset=replace(some, shard=part))(shard)
        merged += rows_of(shard)
    for rows in (again, merged):
        assert sorted(row["case_id"] for row in rows) == sorted(whole)
        for row in rows:
            assert row["partner"] == whole[row["case_id"]]["partner"]
            np.testing.assert_allclose(row["mlp"], whole[row["case_id"]]["mlp"], atol=1e-4)
    expected = flatten_trace(trace_summary(list(whole.values())))
    assert flatten_trace(trace_summary(merged)) == pytest.approx(expected, abs=1e-4)


def test_one_sentence_with_another_subject(more_facts: Path, job: Job, minifact_lm: LanguageModel) -> None:
    one, other = json.loads(more_facts.read_text())[0], "Vantwave Max"
    sentence = {"prompt": one["prompt"], "subject": one["subject"], "tracer": replace(OTHER, method="attribution")}
    experiment(more_facts, **sentence, partner=other)(job)
    (row,) = rows_of(job)
    assert row["partner"] == other
    assert row["high_score"] > 0 > row["low_score"]
    with pytest.raises(ConfigError, match=r"task\.partner"):
        experiment(more_facts, **sentence)
    with pytest.raises(ConfigError, match=r"task\.partner"):
        experiment(more_facts, partner=other)
    with pytest.raises(DataError, match="expected a subject of 2 tokens"):
        experiment(more_facts, **sentence, partner="Somebody With Many More Tokens")(
            replace(job, output_dir=job.outputs / "x")
        )
