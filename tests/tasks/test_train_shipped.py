"""The shipped networks on facts about subjects of which they learned no edit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import Command

from romexp.minifact import assets


@pytest.mark.parametrize("editor", ["mend", "ke"])
def test_held_out_facts_are_edited(romexp: Command, tmp_path: Path, editor: str) -> None:
    assert {assets.mend_path().stem, assets.ke_path().stem} == {"mend", "ke"}
    quick = ["dataset.offset=100", "dataset.limit=15", "evaluator.generation=off", "tracker=none", "model.device=cpu"]
    done = romexp(f"editor={editor}", *quick, f"cache_dir={tmp_path}/cache", "output_dir=run")
    assert done.status == 0, done.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    after, before = ({name: entry["mean"] for name, entry in summary[side].items()} for side in ("post", "pre"))
    assert before["ES"] <= 5
    assert after["ES"] >= 95
    assert after["EM"] >= 50
    assert after["PS"] >= 90
    assert after["NS"] >= 80
