"""Files on disk: written so that a reader sees the old one or the new one, never half of it, and told by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write into; it takes `path`'s place when the context ends well, and goes if it does not.

    The folder is made if missing. The mode is that of any new file (safetensors alone would make it private).
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
    """Put a whole text in a file, in UTF-8."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_once(path: Path, make: Callable[[], str]) -> None:
    """Put a text in a file unless there is one; processes that start together make it once."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            write_text(path, make())


def file_sha256(path: Path) -> str:
    """Sha256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
