"""Where shared files are kept, atomic writing of files, and what tells whether a file has changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

Stamp = tuple[int, int, int]
"""Size in bytes, and the times in ns when the content and the file's entry were changed last. A file with an equal
stamp is taken to be unchanged. The second time tells of files that were exchanged with the first one kept.
"""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: yields a temporary path in the same folder, which replaces `path` when the context ends.

    If the context ends with an error, the temporary file is deleted and `path` does not change. The folder is created
    if it does not exist. The file gets the default permissions of new files; safetensors would make it private.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.touch()
    mode = part.stat().st_mode
    try:
        yield part
        part.chmod(mode)
        part.replace(path)
    finally:
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
    """Write a text to a file, atomically and in UTF-8."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_once(path: Path, make: Callable[[], str]) -> None:
    """Write the text that `make` returns to a file, unless the file exists.

    If several processes call this at the same time, only one of them makes the text.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            write_text(path, make())


def cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    """`cache_dir`; else `$ROMEXP_CACHE`; else `romexp` in the user's cache folder (`$XDG_CACHE_HOME` or ~/.cache)."""
    given = cache_dir or os.environ.get("ROMEXP_CACHE")
    return Path(given or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "romexp")).expanduser()


def stamp(file: Path) -> Stamp:
    """The stamp of an existing file; of what it leads to if it is a link."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
