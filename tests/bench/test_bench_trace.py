"""bench/trace.py: both sides run and agree. What it measures is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_process import run_bench


@pytest.mark.slow
def test_ours_and_one_pass_a_cell_agree(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    options = ["--facts", "2", "--repeats", "1", "--samples", "2", "--output", str(out)]
    done = run_bench("trace", options)
    assert done.returncode == 0, done.stderr
    rows = {row["variant"]: row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {"ours", "ours, one prompt at a time", "one pass a cell"}
    assert max(row["difference"] for row in rows.values()) < 1e-5
    assert rows["one pass a cell"]["gflop"] > 3 * rows["ours"]["gflop"] > 0
    assert "one pass" in done.stdout
