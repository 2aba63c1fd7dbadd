"""Atomic writing of files, and hashes of their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

import romexp


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
