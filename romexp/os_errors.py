"""Words the errors of the operating system: one line that names the path, the reason, and what to do about it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ELSEWHERE = "choose another folder"
REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: f"free some space, or {ELSEWHERE}",
    errno.EDQUOT: f"free some of your quota, or {ELSEWHERE}",
    errno.EFBIG: f"raise the limit of file sizes (`ulimit -f`), or {ELSEWHERE}",
    errno.EROFS: ELSEWHERE,
    errno.EACCES: f"change the permissions, or {ELSEWHERE}",
    errno.EPERM: f"change the permissions, or {ELSEWHERE}",
    errno.ENAMETOOLONG: f"give shorter names (model.name), or {ELSEWHERE}",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 4096`)",
    errno.ENFILE: "close other programs: the whole machine has too many files open",
    errno.EISDIR: "there is a folder in the place of this file: move it away",
    errno.ENOTDIR: "a part of this path is a file and not a folder: move it away",
    errno.EEXIST: "there is a file in the place of this folder: move it away",
    errno.ENOTEMPTY: "there is a folder in the place of this file: move it away",
    errno.ELOOP: "a part of this path is a link to itself: remove it",
    errno.EIO: f"check the disk, or {ELSEWHERE}",
    errno.ESTALE: f"the network's disk has gone: mount it again, or {ELSEWHERE}",
    errno.ENOTCONN: f"the network's disk has gone: mount it again, or {ELSEWHERE}",
    errno.ENOMEM: "free some memory",
    errno.ENOENT: "give a path that exists",
}
"""What to do, by the number of the error."""

SETTINGS = "output_dir, outputs, cache_dir or ROMEXP_CACHE"
"""The settings that choose folders, for a path that belongs to none of the known ones."""


@contextmanager
def path_in_errors(path: Path | str) -> Iterator[None]:
    """Let every `OSError` inside the context say `path` as its file name, if it says none.

    Errors of opening a file have its name. Those of writing into it, as on a full disk, have none.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:  # without a number the file name would hide its text
            error.filename = str(path)
        raise


def os_error(message: str, path: Path | str) -> OSError | None:
    """The `OSError` that a library written in Rust reports as text, `… (os error 28)`; None if it reports none."""
    number = re.search(r"\(os error (\d+)\)", message)
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path)) if number else None


def describe(error: OSError, folders: Mapping[str, Path | None] | None = None) -> str:
    """The error in one line, such as `/disk/a.json: No space left on device (free some space, or …)`.

    Args:
        folders: the folders that settings have chosen, by the setting's name. The line names the setting whose folder
            holds the path.
    """
    number = error.errno if isinstance(error.errno, int) else None
    path = "" if error.filename is None else os.fsdecode(error.filename)
    reason = (os.strerror(number) if number else str(error)) or type(error).__name__
    remedy = REMEDIES.get(number or 0, "")
    if remedy.endswith(ELSEWHERE):
        remedy += f" ({_setting(path, folders or {})})"
    line = f"{path}: {reason}" if path and path not in reason else reason
    return f"{line}: {remedy}" if remedy else line


def _setting(path: str, folders: Mapping[str, Path | None]) -> str:
    """The settings whose folder holds the path; all settings if there is none."""
    place = Path(path).absolute()
    found = [name for name, folder in folders.items() if folder is not None and place.is_relative_to(folder.absolute())]
    return found[0] if found else SETTINGS
