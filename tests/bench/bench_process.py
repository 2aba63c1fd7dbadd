"""Runs a benchmark as a user does: a process of its own, from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_bench(name: str, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """`python bench/<name>.py` with options, on one thread."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "bench" / f"{name}.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
