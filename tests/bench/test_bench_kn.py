"""bench/kn.py: both sides run and agree. What it measures is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_ours_and_one_pass_a_layer_agree(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    options = ["--records", "2", "--single-records", "1", "--repeats", "1", "--steps", "5", "--output", str(out)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "kn.py"), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert [row["records"] for row in rows.values()] == [2, 1, 1]
    assert max(row["difference"] for row in rows.values()) < 1e-3
    assert "layer by layer" in done.stdout
