"""One GPU for each job of a sweep on one machine: taken by a file lock, so that any number of processes may ask."""

from __future__ import annotations

import getpass
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5


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
        time.sleep(LOOK_EVERY_S)
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
