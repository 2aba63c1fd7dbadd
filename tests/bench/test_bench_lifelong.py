"""bench/lifelong.py: batched and single values agree, and the state grows. What it measures is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_process import run_bench


@pytest.mark.slow
def test_batches_and_single_facts_agree(tmp_path: Path) -> None:
    out = tmp_path / "numbers.json"
    options = ["--records", "4", "--single-records", "2", "--batches", "4", "--step", "2", "--repeats", "1"]
    done = run_bench("lifelong", [*options, "--output", str(out)])
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert [(row["batch"], row["facts"]) for row in found["values"]] == [(1, 2), (4, 4)]
    assert max(row["difference"] for row in found["values"]) < 1e-3
    assert found["insertion"]["facts"] == 4
    assert [row["edits"] for row in found["sequence"]] == [2, 4]
    assert found["sequence"][0]["state_mib"] < found["sequence"][1]["state_mib"]
    assert "insertion of 4 facts" in done.stdout
