"""Fitted second moments on disk, keyed by everything that affects them; concurrent jobs measure each only once."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from romexp.stats.second_moment import SecondMoment, load_moments, save_moments

_log = logging.getLogger(__name__)


def key_of(ingredients: Mapping[str, Any]) -> str:
    """16 hex digits that change with every ingredient. Ingredients are JSON-ready; their order does not matter."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One layer's place in the cache.

    Attributes:
        layer: the layer.
        key: `key_of` everything that affects its second moment.
        name: readable part of the file name.
    """

    layer: int
    key: str
    name: str


@dataclass(frozen=True, kw_only=True)
class MomentCache:
    """A folder with one file a second moment (`<name>_<key>.safetensors`), each written in one step.

    Attributes:
        folder: made when something is stored.
    """

    folder: Path

    def path(self, entry: Entry) -> Path:
        return self.folder / f"{entry.name}_{entry.key}.safetensors"

    def get(self, entry: Entry) -> SecondMoment | None:
        """The stored second moment, or None.

        Raises:
            DataError: the file is there but cannot be read.
        """
        path = self.path(entry)
        return load_moments(path, [entry.layer])[entry.layer] if path.is_file() else None

    def put(self, entry: Entry, moment: SecondMoment) -> None:
        save_moments(self.path(entry), {entry.layer: moment})

    @contextmanager
    def locked(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Hold the locks of these entries; wait for whoever has one. A killed holder's lock is free at once.

        Look again with `get` once inside: the one waited for has probably stored what is wanted.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            # Always in the same order, so that two jobs with common layers cannot wait for each other.
            for entry in sorted(entries, key=lambda e: e.key):
                path = self.path(entry).with_suffix(".lock")
                lock = FileLock(path)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    _log.info("waiting for another process that measures %s", self.path(entry).name)
                    lock.acquire()
                stack.callback(lock.release)
            yield
