"""Worker processes of a sweep: they end with the command that started it, and each job has a GPU of its own."""

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
"""Seconds between two looks: is the parent process alive, is a GPU free."""
_WATCH = "romexp: is the command still there?"


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process by more than its number, which another may get later.

    Attributes:
        host: the machine.
        pid: its number there.
        born: when it began, as `psutil` tells it.
    """

    host: str
    pid: int
    born: str

    @classmethod
    def this(cls) -> Process:
        """The process that asks."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process of this machine that has this number now."""
        return cls(host=platform.node(), pid=pid, born=_born(pid))

    @property
    def is_here(self) -> bool:
        """On this machine?"""
        return self.host == platform.node()

    @property
    def is_alive(self) -> bool:
        """Only for a process of this machine. One that has ended but was not waited for counts as gone."""
        return _born(self.pid) == self.born


def exit_when_parent_dies(command: Process) -> None:
    """End this process, a launcher's worker, soon after the command that started the sweep is gone.

    joblib and submitit leave workers at work when the command is killed. Results are safe at any moment: the case in
    flight is done again by the next run. One thread a process, however many jobs the worker is given.
    """
    if any(thread.name == _WATCH for thread in threading.enumerate()):
        return
    threading.Thread(target=_watch, args=(command,), name=_WATCH, daemon=True).start()


def _watch(command: Process) -> None:
    while command.is_alive:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)  # sys.exit would end this thread alone


def _born(pid: int) -> str:
    """When a process began; empty if it has ended, also where its parent has not waited for it yet."""
    try:
        process = psutil.Process(pid)
        return "" if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) else repr(process.create_time())
    except psutil.Error:
        return ""


def visible_gpus(count: int) -> list[str]:
    """The machine's names of the GPUs that this process sees, in the order in which torch numbers them.

    Args:
        count: how many torch sees.
    """
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if len(named) >= count else [str(k) for k in range(count)]


def lock_folder() -> Path:
    """Where this user's locks on this machine's GPUs lie."""
    return Path(tempfile.gettempdir()) / f"romexp-gpus-{getpass.getuser()}"


@contextmanager
def own_gpu(names: Sequence[str], *, folder: Path) -> Iterator[str]:
    """`cuda:k` of a GPU that no other holder of this pool has, waiting until one is free. A killed holder's is.

    Args:
        names: of the GPUs, in torch's order; equal names in two processes are the same GPU.
        folder: where the locks lie, for all processes that share the GPUs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"{name.replace('/', '_')}.lock") for name in names]
    index, told = _take(locks), False
    while index is None:
        if not told:
            log.info("waiting for a GPU: %d are in use by other jobs", len(locks))
            told = True
        time.sleep(GPU_CHECK_S)
        index = _take(locks)
    try:
        yield f"cuda:{index}"
    finally:
        locks[index].release()


def _take(locks: Sequence[FileLock]) -> int | None:
    """The number of the first free one, now held; None if there is none."""
    first = os.getpid() % len(locks)  # a worker comes back to the same GPU if it can
    for index in [*range(first, len(locks)), *range(first)]:
        try:
            locks[index].acquire(timeout=0)
        except Timeout:
            continue
        return index
    return None
