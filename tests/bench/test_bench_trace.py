"""bench/trace.py: both sides run and agree. What it measures is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_ours_and_one_pass_a_cell_agree(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    options = ["--facts", "2", "--naive-facts", "1", "--repeats", "1", "--samples", "2", "--output", str(out)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "trace.py"), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert set(rows["seconds_per_fact"]) == {"ours", "ours, one prompt at a time", "one pass a cell"}
    assert max(rows["differences"].values()) < 1e-5
    assert "one pass" in done.stdout
