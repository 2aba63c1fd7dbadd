"""A file is replaced whole or not at all, made once by whoever comes first, and as readable as any other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch

from romexp.files import cache_folder, file_sha256, replacing, write_once, write_text
from romexp.lm.weight_delta import Dense, WeightDelta


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


def test_who_starts_together_makes_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    together = Barrier(4)
    made: list[int] = []

    def start(i: int) -> None:
        def make() -> str:
            made.append(i)
            return f"by {i}"

        together.wait(timeout=30)
        write_once(path, make)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(4)))
    (first,) = made
    assert path.read_text() == f"by {first}"


def test_file_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_cache_folder_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ROMEXP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(None) == tmp_path / "xdg" / "romexp"
    monkeypatch.setenv("ROMEXP_CACHE", str(tmp_path / "own"))
    assert cache_folder(None) == tmp_path / "own"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("ROMEXP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(None) == Path.home() / ".cache" / "romexp"
