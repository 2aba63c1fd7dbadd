"""Tensors and texts come back as they went in; a torn file is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from romexp.lm.tensor_files import read_tensors, stored_metadata, write_tensors


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


def test_a_changed_bit_is_found(tmp_path: Path) -> None:
    """Also in one of several tensors; one that is not read is not looked at."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(50), "b": torch.arange(50)}, {"kind": "k"})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SafetensorError, match=r"tensor [ab] has changed"):
        read_tensors(path)
    whole = [name for name in "ab" if _reads(path, name)]
    assert len(whole) == 1
    assert stored_metadata(path) == {"kind": "k"}


def _reads(path: Path, name: str) -> bool:
    try:
        read_tensors(path, wanted=name.__eq__)
    except SafetensorError:
        return False
    return True


def test_files_of_others_have_no_checksums(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"kind": "k"})
    assert read_tensors(tmp_path / "x.safetensors")[0] == {"kind": "k"}


def test_equal_tensors_give_equal_files(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(3), "a": torch.arange(4)}
    metadata = {"z": "last", "kind": 'é "quoted" \n \x01', "a": "first", "m": "middle"}
    for i in range(8):
        write_tensors(tmp_path / f"{i}.safetensors", tensors, metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert read_tensors(tmp_path / "0.safetensors")[0] == metadata
