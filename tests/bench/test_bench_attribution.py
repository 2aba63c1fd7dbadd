"""bench/attribution.py: it compares every variant with the exact trace. What it measures is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_process import run_bench


@pytest.mark.slow
def test_every_variant_is_compared(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    everything = ["--share", "1", "--at-least", '{"hidden": 1e-9, "mlp": 1e-9, "attn": 1e-9}']
    options = ["--facts", "1", "--samples", "2", "--corruption", "str", *everything, "--output", str(out)]
    done = run_bench("attribution", options)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert len({row["variant"] for row in rows}) == 7
    assert {row["kind"] for row in rows} == {"hidden", "mlp", "attn"}
    screened = [row for row in rows if row["variant"].startswith("screen")]
    assert all(row["top_5"] == 1 and row["spearman"] > 0.999 for row in screened)  # all cells were computed
    guessed = [row for row in rows if row["variant"] == "attribution"]
    assert any(row["spearman"] < 0.999 for row in guessed)
    assert "Spearman" in done.stdout
