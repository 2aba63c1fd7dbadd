"""Where shared files are kept, reading and atomic writing of files, and what tells whether a file has changed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

import romexp
from romexp.os_errors import path_in_errors

log = logging.getLogger(__name__)

PART = ".part"
"""The ending of files that are being written. One that a killed process has left is no content of its folder."""
LARGE_FILE = 1 << 24
"""From this size in bytes on, the digest of a file of records is kept."""
Stamp = tuple[int, int, int]
"""Size in bytes, and the times in ns when the content and the file's entry were changed last. A file with an equal
stamp is taken to be unchanged. The second time tells of files that were exchanged with the first one kept.
"""


def cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    """`cache_dir`; else `$ROMEXP_CACHE`; else `romexp` in the user's cache folder (`$XDG_CACHE_HOME` or ~/.cache)."""
    given = cache_dir or os.environ.get("ROMEXP_CACHE")
    return Path(given or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "romexp")).expanduser()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: yields a temporary path in the same folder, which replaces `path` when the context ends.

    If the context ends with an error, the temporary file is deleted and `path` does not change. The folder is created
    if it does not exist. The file gets the default permissions of new files; safetensors would make it private.

    Raises:
        OSError: the file cannot be written. Its `filename` is that of a folder above, or `path` itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        with path_in_errors(path):
            part.touch()
            mode = part.stat().st_mode
            yield part
            part.chmod(mode)
            part.replace(path)
    except OSError as error:
        if error.filename in (str(part), part):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def creating_folder(path: Path) -> Iterator[Path]:
    """Make a folder with all its files at once: yields a temporary folder, which becomes `path` when the context ends.

    If the context ends with an error, the temporary folder is deleted, and `path` does not exist or is as it was.

    Raises:
        OSError: `path` cannot be made, or is by now something else than an empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        inner = part / path.name  # Unlike `part` itself, it gets the default permissions of new folders.
        inner.mkdir()
        yield inner
        for file in inner.rglob("*"):
            if file.is_file():  # Safetensors makes its files private.
                file.chmod(inner.stat().st_mode & 0o666)
        inner.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text to a file, atomically and in UTF-8.

    Half of a surrogate pair, which is no character and which UTF-8 cannot express, becomes `\\udXXX`. In JSON this is
    the same text.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_once(path: Path, make: Callable[[], str], *, usable: Callable[[Path], bool] = Path.is_file) -> None:
    """Write the text that `make` returns to a file, unless the file exists and is usable.

    If several processes call this at the same time, only one of them makes the text.

    Args:
        usable: whether a file is what `make` would write. It is false for a missing file.
    """
    if usable(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not usable(path):
            if path.is_file():
                log.warning("%s is damaged: it is made again", path)
            write_text(path, make())


def stamp(file: Path) -> Stamp:
    """The stamp of an existing file; of what it leads to if it is a link."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: the file cannot be read. Its `filename` is `path`.
        ValueError: the file is not UTF-8 or not JSON, or Python cannot read a value in it. The message is one line.
    """
    with path_in_errors(path):
        data = path.read_bytes()
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {error.reason}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def kept_sha256(path: Path, folder: Path) -> str:
    """`file_sha256`, kept in `folder` for a large file that has not changed, so that it is read only once."""
    before = stamp(path)
    if before[0] < LARGE_FILE:
        return file_sha256(path)
    key = hashlib.sha256(json.dumps([str(path.resolve()), before]).encode()).hexdigest()[:24]
    kept = folder / "digests" / "files" / f"{key}.txt"
    with suppress(OSError, UnicodeDecodeError):
        if re.fullmatch(r"[0-9a-f]{64}", found := kept.read_text(encoding="utf-8").strip()):
            return found
    digest = file_sha256(path)
    if stamp(path) == before:
        with suppress(OSError):
            write_text(kept, digest + "\n")
    return digest


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest(parts: Iterable[str]) -> str:
    """SHA-256 over source files of the package. A cache whose key holds it forgets what older code computed.

    Args:
        parts: folders and files, relative to the package's folder.
    """
    root = Path(romexp.__file__).parent
    digest = hashlib.sha256()
    for part in parts:
        path = root / part
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
