"""Refuses compressed files that unpack to far more than they can reasonably hold, before they are unpacked.

Such files ("zip bombs") fill the memory or the disk. Texts become 3 to 30 times larger, and arrays of floats hardly.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from romexp.errors import DataError

MOST = 100
"""How many times larger than the file its content may be."""
MOST_POSSIBLE = 1032
"""How many times larger the content of a gzip file can be."""
GZIP_MAGIC = b"\x1f\x8b"
"""The first bytes of every gzip file."""
SMALL = 1 << 24
"""Content of at most this many bytes is never refused."""


def check_unpacked_size(path: Path, packed: int, unpacked: int, *, part: str = "", at_least: bool = False) -> None:
    """Refuse a file whose content is more than `MOST` times larger.

    Args:
        packed: bytes in the file.
        unpacked: bytes of the content.
        part: the name of the part of the file that this is about; empty for the whole file.
        at_least: `unpacked` is only what has been read so far.

    Raises:
        DataError: it is larger. The message names the file and both sizes.
    """
    if unpacked > max(SMALL, MOST * packed):
        what = f"{path}, {part}" if part else str(path)
        more = "more than " if at_least else ""
        raise DataError(
            f"{what}: refused, because {_size(packed)} would unpack to {more}{_size(unpacked)} (at most {MOST} times "
            "as much is read); unpack it yourself if you trust it"
        )


def check_zip(path: Path) -> None:
    """Refuse a zip file (`.zip`, `.npz`, weights in `.bin`) whose parts unpack to too much. Nothing is unpacked.

    Another kind of file is left to its reader.

    Raises:
        DataError: see `check_unpacked_size`.
    """
    try:
        with zipfile.ZipFile(path) as file:
            parts = file.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return
    # The file's own size is used, because several entries of a hostile file may share the same packed bytes.
    packed = path.stat().st_size
    check_unpacked_size(path, packed, sum(part.file_size for part in parts))
    for part in parts:
        check_unpacked_size(path, part.compress_size, part.file_size, part=part.filename)


@contextmanager
def open_gzip_text(path: Path) -> Iterator[IO[str]]:
    """Open a gzip file of UTF-8 text. It raises what `open_gzip` raises."""
    with open_gzip(path) as inner, io.TextIOWrapper(inner, encoding="utf-8") as text:
        yield text


@contextmanager
def open_gzip(path: Path) -> Iterator[IO[bytes]]:
    """Open a gzip file.

    The size that the file states is checked first. It may be wrong, so what is read is counted too.

    Raises:
        DataError: see `check_unpacked_size`.
        OSError, EOFError, zlib.error: the file cannot be read.
    """
    packed = path.stat().st_size
    check_gzip(path)
    with gzip.open(path, "rb") as inner:
        counted = _Counted(inner.read, lambda n: check_unpacked_size(path, packed, n, at_least=True))
        with io.BufferedReader(counted, 1 << 16) as content:
            yield cast(io.BufferedReader, content)  # Typeshed gives a reader the type of its raw stream.


@contextmanager
def open_unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading its content, which may be packed by gzip. Its first bytes tell, not its name.

    Raises:
        DataError: see `check_unpacked_size`.
        OSError, EOFError, zlib.error: the file cannot be read.
    """
    with path.open("rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        if not packed:
            yield file
            return
    with open_gzip(path) as content:
        yield content


def check_gzip(path: Path) -> None:
    """Refuse a gzip file that states itself that it unpacks to too much.

    Raises:
        DataError: see `check_unpacked_size`.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        if size < 18:  # header and trailer of the smallest gzip file
            return
        file.seek(-4, io.SEEK_END)
        (stated,) = struct.unpack("<I", file.read(4))  # modulo 4 GiB, and that of the last member only
    # A size that this compression cannot reach is that of a damaged file. The count while reading is exact in any case.
    if stated <= MOST_POSSIBLE * size:
        check_unpacked_size(path, size, stated)


def check_array(path: Path, file: IO[bytes], size: int, *, part: str = "") -> None:
    """Refuse an array in NumPy's format whose header states more bytes than there are.

    NumPy would take memory for the whole array before it reads its values.

    Args:
        file: is read from its beginning, up to the end of the header.
        size: bytes in `file`.
        part: the array's name in an `.npz`; empty for an `.npy`.

    Raises:
        DataError: it states more.
        ValueError: it has no such header.
    """
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)  # type: ignore[no-untyped-call]
    stated = int(np.prod([int(n) for n in shape], dtype=object)) * int(dtype.itemsize)
    if stated > size and not dtype.hasobject:
        what = f"{path}, {part}" if part else str(path)
        raise DataError(f"{what}: refused, because {_size(size)} cannot hold the {_size(stated)} of shape {shape}")


class _Counted(io.RawIOBase):
    """A stream that reports how many bytes have been read."""

    def __init__(self, read: Callable[[int], bytes], report: Callable[[int], None]) -> None:
        self._read, self._report, self._count = read, report, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self._count += len(data)
        self._report(self._count)
        return len(data)


def _size(count: int) -> str:
    return f"{count:,} bytes"
