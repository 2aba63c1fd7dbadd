"""An error of the operating system becomes a line that names the path, the reason and what to do."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from romexp.files import read_json, replacing, write_text
from romexp.lm.tensor_files import write_tensors
from romexp.os_errors import SETTINGS, describe, path_in_errors
from romexp.reporting.figures.style import write_figure
from romexp.results.folder import RunFolder
from romexp.results.rows import Curves


@contextmanager
def file_sizes_at_most(size: int) -> Iterator[None]:
    """Longer writes fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


BIG = "x" * 50_000
WRITES = {
    "text": lambda folder: write_text(folder / "file", BIG),
    "rows": lambda folder: RunFolder(folder).append([{"case_id": 1, "text": BIG}]),
    "curves": lambda folder: Curves(folder / "file").append({"step": 1} | _wide()),
    "tensors": lambda folder: write_tensors(folder / "file", {"a": torch.zeros(20_000)}, {}),
    "table": lambda folder: RunFolder(folder).write_parquet(pd.DataFrame({"a": torch.rand(20_000).tolist()})),
    "figure": lambda folder: write_figure(Figure(figsize=(9, 9)), folder / "file", caption=BIG),
}


def _wide() -> dict[str, float]:
    return {f"value {i}": 1.0 for i in range(2000)}


@pytest.mark.parametrize("kind", WRITES)
def test_a_write_that_fails_names_the_file_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    with file_sizes_at_most(4096), pytest.raises(OSError, match="File too large") as caught:
        WRITES[kind](tmp_path)
    line = describe(caught.value, {"outputs": tmp_path})
    assert str(tmp_path) in line
    assert ".part" not in line
    assert line.endswith("raise the limit of file sizes (`ulimit -f`), or choose another folder (outputs)")
    assert "\n" not in line
    assert not list(tmp_path.glob("*.part"))
    WRITES[kind](tmp_path)  # a control: without the limit it works


@pytest.mark.parametrize("name", ["EROFS", "EACCES", "ENOSPC", "EDQUOT", "ENAMETOOLONG", "EMFILE", "EISDIR", "ENOTDIR"])
def test_each_error_says_what_to_do(name: str) -> None:
    number = getattr(errno, name)
    line = describe(OSError(number, "some reason", "/disk/cache/a.json"), {"cache_dir": Path("/disk/cache")})
    path, reason, remedy = line.split(": ", 2)
    assert path == "/disk/cache/a.json"
    assert reason
    assert remedy
    assert remedy.endswith("(cache_dir)") == ("another folder" in remedy)


def test_a_path_in_no_known_folder_names_every_setting() -> None:
    assert describe(OSError(errno.EROFS, "", "/elsewhere/a"), {"outputs": Path("/disk")}).endswith(f"({SETTINGS})")


def test_an_error_without_a_number_keeps_its_text() -> None:
    with pytest.raises(OSError, match="no such thing"), path_in_errors("file"):
        raise OSError("no such thing")
    assert describe(OSError("no such thing")) == "no such thing"


def test_a_folder_in_the_place_of_a_file_and_a_file_in_that_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="directory") as caught:
        write_text(tmp_path / "folder", "text")
    assert describe(caught.value).startswith(f"{tmp_path / 'folder'}: Is a directory: there is a folder")
    with pytest.raises(OSError, match="file") as caught:
        write_text(tmp_path / "file" / "a", "text")
    assert "move it away" in describe(caught.value)


def test_half_a_character_does_not_end_a_write(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", '{"name": "\udcff"}')
    assert read_json(tmp_path / "a.json") == {"name": "\udcff"}
    RunFolder(tmp_path).append([{"case_id": 1, "text": "\ud800"}])
    assert RunFolder(tmp_path).rows() == [{"case_id": 1, "text": "\ud800"}]


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 5000 + b"]" * 5000, b'"\xe9"', b"9" * 5000])
def test_what_is_no_json_is_one_kind_of_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"not UTF-8|nested|Expecting|digits"):
        read_json(tmp_path / "a.json")


def test_an_error_inside_a_write_that_names_another_file_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="other") as caught, replacing(tmp_path / "a"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")
