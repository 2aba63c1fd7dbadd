"""Worker processes of a sweep: they end when the command that started it ends, and each job gets its own GPU."""

from __future__ import annotations

import getpass
import logging
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

PARENT_CHECK_S, GPU_CHECK_S = 1.0, 0.5
"""Seconds between two checks whether the parent process is alive, and whether a GPU is free."""
_THREAD = "romexp: watch the parent process"


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process, identified by more than its process id, which another process may get later.

    Attributes:
        host: name of the machine.
        pid: process id on that machine.
        born: creation time, as reported by `psutil`; empty if the process has ended.
    """

    host: str
    pid: int
    born: str

    @classmethod
    def this(cls) -> Process:
        """The current process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process of this machine that has this process id now."""
        return cls(host=platform.node(), pid=pid, born=_born(pid))

    @property
    def is_here(self) -> bool:
        """Whether the process is on this machine."""
        return self.host == platform.node()

    @property
    def is_alive(self) -> bool:
        """Whether the process is running; only valid on its own machine. A zombie process counts as ended."""
        return _born(self.pid) == self.born


def exit_when_parent_dies(command: Process) -> None:
    """End this process, a launcher's worker, soon after the command that started the sweep is gone.

    joblib and submitit leave workers running when the command is killed. A worker can be ended at any moment without
    damage to results: the next run repeats the unfinished cases. However many jobs a worker gets, it starts one thread.
    """
    if any(thread.name == _THREAD for thread in threading.enumerate()):
        return
    threading.Thread(target=_watch, args=(command,), name=_THREAD, daemon=True).start()


def _watch(command: Process) -> None:
    while command.is_alive:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)  # sys.exit would end this thread only


def _born(pid: int) -> str:
    """Creation time of a process; empty if it has ended or is a zombie process."""
    try:
        process = psutil.Process(pid)
        return "" if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) else repr(process.create_time())
    except psutil.Error:
        return ""


def visible_gpus(count: int) -> list[str]:
    """Names of the GPUs that this process sees, in torch's order. All processes of the machine use the same names.

    Args:
        count: number of GPUs that torch sees.
    """
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if len(named) >= count else [str(k) for k in range(count)]


def lock_folder() -> Path:
    """Folder of this user's lock files for the GPUs of this machine."""
    return Path(tempfile.gettempdir()) / f"romexp-gpus-{getpass.getuser()}"


@contextmanager
def own_gpu(names: Sequence[str], *, folder: Path) -> Iterator[str]:
    """Yield `cuda:k` of a GPU that no other process holds; wait until one is free. A killed process holds none.

    Args:
        names: names of the GPUs, in torch's order; equal names in two processes mean the same GPU.
        folder: folder of the lock files, the same for all processes that share the GPUs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"{name.replace('/', '_')}.lock") for name in names]
    index, logged = _acquire_free(locks), False
    while index is None:
        if not logged:
            log.info("waiting for a GPU: %d are in use by other jobs", len(locks))
            logged = True
        time.sleep(GPU_CHECK_S)
        index = _acquire_free(locks)
    try:
        yield f"cuda:{index}"
    finally:
        locks[index].release()


def _acquire_free(locks: Sequence[FileLock]) -> int | None:
    """Acquire the first free lock and return its index; None if no lock is free."""
    first = os.getpid() % len(locks)  # so that a worker gets the same GPU again if it is free
    for index in [*range(first, len(locks)), *range(first)]:
        try:
            locks[index].acquire(timeout=0)
        except Timeout:
            continue
        return index
    return None
