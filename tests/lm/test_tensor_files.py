"""Tensors and texts come back as they went in; a torn file is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from romexp.lm.tensor_files import read_tensors, write_tensors


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Also views of one tensor, and one with a gradient."""
    whole = torch.arange(6.0).view(2, 3).requires_grad_(True)
    tensors = {"whole": whole, "column": whole[:, 1], "count": torch.tensor(3)}
    write_tensors(tmp_path / "sub" / "x.safetensors", tensors, {"kind": "é"})
    metadata, read = read_tensors(tmp_path / "sub" / "x.safetensors")
    assert metadata == {"kind": "é"}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and not read[name].requires_grad for name in read)
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["x.safetensors"]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(OSError, match="No such file"):
        read_tensors(path)
    write_tensors(path, {"a": torch.ones(9)}, {})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SafetensorError):
        read_tensors(path)
