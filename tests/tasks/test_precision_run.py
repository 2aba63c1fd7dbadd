"""`model.matmul_precision` of a run: in its identity, its manifest and its title; and gone when it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import Command

from romexp.edit_batch import EditBatch


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The setting of torch whenever a batch is edited."""
    found: list[str] = []
    original = EditBatch.__call__

    def call(self: EditBatch, cases: Any) -> Any:
        found.append(torch.get_float32_matmul_precision())
        return original(self, cases)

    monkeypatch.setattr(EditBatch, "__call__", call)
    return found


def test_two_runs_of_one_process_have_each_its_own(
    tiny: list[str], romexp: Command, tmp_path: Path, seen: list[str]
) -> None:
    usual, medium = tmp_path / "usual", tmp_path / "medium"
    common = [*tiny, "dataset.limit=1", f"cache_dir={tmp_path / 'cache'}"]
    first = romexp(*common, f"output_dir={medium}", "model.matmul_precision=medium")
    second = romexp(*common, f"output_dir={usual}")
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert seen == ["medium", "highest"]
    assert torch.get_float32_matmul_precision() == "highest"
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (medium, usual)]
    assert manifests[0]["identity"]["model"] == manifests[1]["identity"]["model"] | {"matmul_precision": "medium"}
    assert "matmul_precision" not in manifests[1]["identity"]["model"], "runs of before keep their identity"
    assert manifests[0]["hash"] != manifests[1]["hash"]
    assert [m["model"]["matmul_precision"] for m in manifests] == ["medium", "highest"]
    acts = manifests[0]["model"]["matmul_precision_has_effect"]
    assert ("has no effect here" in first.err) is not acts
    assert "in medium precision" in first.out
    assert "precision" not in second.out


def test_results_of_another_precision_are_not_taken_up(tiny: list[str], romexp: Command, tmp_path: Path) -> None:
    common = [*tiny, "dataset.limit=1", f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'run'}"]
    assert romexp(*common).status == 0
    refused = romexp(*common, "model.matmul_precision=high")
    assert refused.status == 2
    assert "model.matmul_precision is None there, 'high' here" in refused.err


def test_a_wrong_value_is_one_line(tiny: list[str], romexp: Command) -> None:
    refused = romexp(*tiny, "model.matmul_precision=low")
    assert refused.status == 2
    assert "model.matmul_precision" in refused.err
    assert "highest" in refused.err


def test_the_title_says_bfloat16(tiny: list[str], romexp: Command, tmp_path: Path) -> None:
    done = romexp(*tiny, "dataset.limit=1", "model.dtype=bfloat16", f"output_dir={tmp_path / 'run'}")
    assert done.status == 0, done.err
    assert "in bfloat16" in done.out
