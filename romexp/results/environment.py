"""Describes this process for the manifest: versions, commit and machine."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import romexp

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scikit-learn", "nltk", "datasets")
"""Libraries whose version can change a result."""


def describe() -> dict[str, Any]:
    """Versions, commit and machine, as JSON values."""
    import torch  # This import takes seconds, and the command line imports this file.

    return {
        "romexp": romexp.__version__,
        "commit": commit(),
        "folder_commit": folder_commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The commit of the checkout, followed by `+changes` if files differ from it. None for an installed package."""
    root = _checkout()
    return _commit(root) if (root / ".git").exists() else None


def folder_commit() -> str | None:
    """The same of the checkout that holds the working folder, such as the user's own project. None if there is none, or
    it is the package's.
    """
    try:
        folder = Path.cwd()
    except OSError:  # It has been deleted.
        return None
    root = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)
    return None if root is None or root.resolve() == _checkout() else _commit(root)


def _checkout() -> Path:
    return Path(romexp.__file__).resolve().parents[1]


def _commit(root: Path) -> str | None:
    try:
        head = _git(root, "rev-parse", "HEAD").strip()
        changed = _git(root, "status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changed else "")


def now() -> str:
    """The current time in UTC, to the second, in ISO 8601 format."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
    ).stdout


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
