"""Compressed files that would unpack to far more than they are: refused with both sizes, before they are unpacked."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from romexp.data.corpora import HfCorpus, TextCorpus
from romexp.data.tfidf import TfIdf
from romexp.errors import DataError
from romexp.stats.readers import read

BIG = 1 << 25


@contextmanager
def refused(*parts: str) -> Iterator[None]:
    """An error line with these parts, and no memory that content of `BIG` bytes would need."""
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ("refused, because", *parts)), message
    assert peak < 0.75 * BIG


def npz(path: Path, array: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("moment.npy", array)
    return path


def header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_statistics(tmp_path: Path) -> None:
    content = header((4096, 2048)) + bytes(BIG)
    path = npz(tmp_path / "bomb.npz", content)
    with refused("bomb.npz", f"{path.stat().st_size:,} bytes", f"unpack to {len(content):,} bytes"):
        read(path, layer=1)


def test_statistics_of_honest_size_are_read(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
    np.savez_compressed(tmp_path / "a.npz", moment=matrix)
    assert np.array_equal(read(tmp_path / "a.npz", layer=1).matrix.numpy(), matrix)
    np.savez_compressed(tmp_path / "zeros.npz", moment=np.zeros((500, 500), np.float32))  # small in any case
    assert not read(tmp_path / "zeros.npz", layer=1).matrix.any()


@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20), (10**9, 10**9)])
def test_arrays_whose_header_promises_more(tmp_path: Path, shape: tuple[int, ...]) -> None:
    size = f"{4 * shape[0] * shape[1]:,} bytes of shape"
    with refused("a.npz, moment.npy", size):
        read(npz(tmp_path / "a.npz", header(shape) + bytes(64)), layer=1)
    (tmp_path / "idf.npy").write_bytes(header(shape) + bytes(64))
    (tmp_path / "vocabulary.json").write_text("{}")
    with refused("idf.npy", size):
        TfIdf(idf_path=tmp_path / "idf.npy", vocabulary_path=tmp_path / "vocabulary.json").load()


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz"])
def test_texts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(bytes(BIG)))
    with refused(name, f"{path.stat().st_size:,} bytes", f"unpack to {BIG:,} bytes"):
        TextCorpus(path=path, unit="line").load()


def test_a_stated_size_that_is_a_lie(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    content = gzip.compress(bytes(BIG))
    path.write_bytes(content[:-4] + struct.pack("<I", 10))
    with refused("a.txt.gz", "unpack to more than 16,"):
        TextCorpus(path=path, unit="line").load()


def test_texts_of_honest_size_are_read(tmp_path: Path) -> None:
    lines = [f"line {i} is about the number {i * i}" for i in range(1000)]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    assert list(TextCorpus(path=tmp_path / "a.txt.gz", unit="line").load()) == lines


def test_a_text_that_a_table_repeats(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 50_000, pyarrow.int32()), ["a text " * 100])
    pyarrow.parquet.write_table(pyarrow.table({"text": values}), path)
    with pytest.raises(DataError, match=r"a\.parquet: refused, because .* would unpack to more than"):
        TextCorpus(path=path).load()


@pytest.mark.parametrize("suffix", ["gz", "zip"])
def test_archives_that_the_library_datasets_would_unpack(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.json.{suffix}"
    if suffix == "gz":
        path.write_bytes(gzip.compress(bytes(BIG)))
    else:
        npz(path, bytes(BIG))
    with refused(path.name, f"{BIG:,} bytes"):
        HfCorpus(path="json", data_files={"train": [str(path)]}).load()
