"""Traces as a table: shards together, studies in order, the paper's figures where settings are the paper's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report_runs import write_run

from romexp.reporting.tables.traces import trace_report, trace_studies
from romexp.reporting.tables.writers import notes_and_commands, to_markdown
from romexp.results.find import find_runs

PAPER = {"noise": "s3", "samples": 10, "window": 10, "replace": False, "extra_token": 0}


def trace_row(case_id: int) -> dict[str, Any]:
    """Three tokens, two of them the subject; two layers, of which the second restores all at its last token."""
    low, high = 0.1, 0.5 + case_id / 100
    grid = [[low, low], [low, high], [low, low]]
    return {
        "case_id": case_id, "prompt": "x", "tokens": ["a", "b", "c"], "subject_range": [0, 2], "answer": " y",
        "low_score": low, "high_score": high, "correct_prediction": True, "hidden": grid, "mlp": grid, "attn": grid,
    }  # fmt: skip


def write_trace(folder: Path, ids: Sequence[int], *, tracer: dict[str, Any] | None = None, **more: Any) -> None:
    identity = {"task": "trace", "tracer": {**PAPER, **(tracer or {})}}
    write_run(folder, ids, model="gpt2-xl", dataset="known", identity=identity, **more)
    (folder / "cases.jsonl").write_text("".join(json.dumps(trace_row(number)) + "\n" for number in ids))


def test_shards_and_settings_and_the_papers_figures(tmp_path: Path) -> None:
    for part in (1, 2, 3):
        write_trace(tmp_path / f"s{part}", range(part - 1, 6, 3), selection={"shard": f"{part}/3"})
    write_trace(tmp_path / "a_later", range(6), tracer={"samples": 20})
    write_trace(tmp_path / "z_first", range(6), tracer={"samples": 3}, status="running")
    studies, problems = trace_studies(find_runs([tmp_path]).runs)
    assert problems == []
    assert [(study.label, study.summary["n"], len(study.runs)) for study in studies] == [
        ("gpt2-xl, known (samples=3)", 6, 1),
        ("gpt2-xl, known (samples=10)", 6, 3),
        ("gpt2-xl, known (samples=20)", 6, 1),
    ]
    table = trace_report(studies)
    lines = [[cell.text for cell in line.cells] for line in table.blocks[0].lines]
    assert [line[0] for line in lines] == [studies[0].label, studies[1].label, "published", studies[2].label]
    assert lines[1][1:5] == ["6", "52.5 (1.4)", "10.0 (0.0)", "42.5 (1.4)"]
    assert lines[1][5:8] == ["42.5 (1.4)", "1", "42.5 (1.4) last subject token, layer 1"]
    assert lines[2][4:7] == ["18.6", "8.7", "15"]
    assert "| ↳ published" in to_markdown(table)
    assert [row["ate"] for row in table.records] == [studies[0].summary["ate"]["mean"]] * 3
    said = notes_and_commands(table)
    assert "  gpt2-xl, known (samples=3): not finished" in said
    assert any(line.startswith("    romexp model=gpt2-xl dataset=known") for line in said)


def test_no_figures_of_the_paper_beside_other_noise(tmp_path: Path) -> None:
    write_trace(tmp_path / "a", range(3), tracer={"noise": "s2"})
    studies, _ = trace_studies(find_runs([tmp_path]).runs)
    assert [line.role for line in trace_report(studies).blocks[0].lines] == ["measured"]


def test_rows_that_are_no_traces_are_named(tmp_path: Path) -> None:
    write_trace(tmp_path / "good", range(3))
    write_run(tmp_path / "bad", range(3), identity={"task": "trace", "tracer": {"noise": "m"}})
    studies, (problem,) = trace_studies(find_runs([tmp_path]).runs)
    assert len(studies) == 1
    assert "bad" in problem
