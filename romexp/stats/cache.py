"""A folder of measured second moments, keyed by everything that affects them. Jobs that run at the same time measure
each second moment only once.
"""

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

from romexp.errors import DataError
from romexp.stats.second_moment import SecondMoment, load_moments, save_moments, stored_layers

_log = logging.getLogger(__name__)


def key_of(ingredients: Mapping[str, Any]) -> str:
    """A hash (16 hexadecimal digits) over JSON-ready settings. The order of the settings does not matter."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Identifies the second moment of one layer in the cache.

    Attributes:
        layer: the layer.
        key: the hash (`key_of`) of everything that affects its second moment.
        name: the readable part of the file name.
    """

    layer: int
    key: str
    name: str


@dataclass(frozen=True, kw_only=True)
class MomentCache:
    """A folder with one file per second moment (`<name>_<key>.safetensors`). Files are written atomically.

    Attributes:
        folder: created when the first file is stored.
    """

    folder: Path

    def path(self, entry: Entry) -> Path:
        return self.folder / f"{entry.name}_{entry.key}.safetensors"

    def get(self, entry: Entry) -> SecondMoment | None:
        """The stored second moment, or None if there is none.

        Raises:
            DataError: the file exists but cannot be read.
        """
        path = self.path(entry)
        if not path.is_file():
            return None
        try:
            return load_moments(path, [entry.layer])[entry.layer]
        except DataError as error:
            # It is not measured again without being asked, since that may take hours.
            raise DataError(f"{error}; delete this file of the cache, and it is measured again") from error

    def put(self, entry: Entry, moment: SecondMoment) -> None:
        save_moments(self.path(entry), {entry.layer: moment})

    @contextmanager
    def locked(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Hold the locks of these entries inside the context. If another process holds one, wait for it.

        When a process is killed, its locks become free. Call `get` again inside the context: the other process has
        probably stored the second moment.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            # Every process takes its locks in the same order, so no two processes can wait for each other.
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


def load_measured(path: Path, keys: Mapping[int, str]) -> dict[int, SecondMoment]:
    """The second moments in a file that were measured on this model with these settings; a line is logged if some were
    not.

    Args:
        keys: what `key_of` makes of the settings, by layer.
    """
    stored = {layer: entry["provenance"].get("key") for layer, entry in stored_layers(path).items()}
    fitting = [layer for layer, key in keys.items() if stored.get(layer) == key]
    if len(fitting) < len(keys):
        _log.info("%s is not used: it was measured on another model or with other settings", path)
    return load_moments(path, fitting) if fitting else {}
