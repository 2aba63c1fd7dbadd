"""A file is replaced whole or not at all, and is as readable as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from romexp.files import replacing, write_text
from romexp.lm.deltas import Dense, WeightDelta


def _fail_midway(path: Path) -> None:
    with replacing(path) as part:
        part.write_text("half")
        raise RuntimeError("midway")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="midway"):
        _fail_midway(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_delta_has_the_mode_of_a_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    WeightDelta(terms={"w.bias": Dense(value=torch.ones(2))}).save(tmp_path / "d.safetensors")
    assert (tmp_path / "d.safetensors").stat().st_mode == plain.stat().st_mode
