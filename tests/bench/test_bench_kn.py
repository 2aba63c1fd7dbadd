"""bench/kn.py: both sides run and agree. What it measures is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_process import run_bench


@pytest.mark.slow
def test_ours_and_one_pass_a_layer_agree(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    options = ["--records", "2", "--single-records", "1", "--repeats", "1", "--steps", "5", "--output", str(out)]
    done = run_bench("kn", options)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert [row["records"] for row in rows.values()] == [2, 1, 1]
    assert max(row["difference"] for row in rows.values()) < 1e-3
    assert "layer by layer" in done.stdout
