"""Writes and reads the files of one run, so that it survives a kill and has only one writer (docs/method.md §11)."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from romexp.errors import ConfigError, DataError
from romexp.files import replacing, write_text
from romexp.results.rows import Row, cut_torn_line, read_rows

if TYPE_CHECKING:  # importing pandas takes half a second, and a finished run does not need it
    import pandas as pd

log = logging.getLogger(__name__)

Status = Literal["running", "done", "failed"]

LOCK_CHECK_S = 0.2
"""Seconds between two checks whether another process has left the folder."""


@dataclass(frozen=True)
class RunFolder:
    """A result folder with the files of docs/method.md §11.1. Creating the object reads and writes nothing."""

    path: Path

    @property
    def cases(self) -> Path:
        """The rows: one line for each case, appended batch by batch. The other files of results are made from them."""
        return self.path / "cases.jsonl"

    def delta(self, case_id: int) -> Path:
        """The file for the delta of one case. It exists only with `save_deltas=true`."""
        return self.path / "deltas" / f"{case_id}.safetensors"

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Make this process the only writer while the context lasts.

        If the process ends, even by a kill, the operating system releases the lock.

        Args:
            wait: if another process is writing into this folder, wait until it ends.

        Raises:
            ConfigError: another process is writing into this folder and `wait` is false, or the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not wait:
                    raise
                log.info("another romexp process is writing into %s: waiting for its results", self.path)
                lock.acquire(poll_interval=LOCK_CHECK_S)
        except Timeout:
            raise ConfigError(
                f"another romexp process is writing into {self.path}: wait for it, or set another output_dir"
            ) from None
        except OSError as error:
            raise ConfigError(f"output_dir: cannot write into {self.path}: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()

    def rows(self) -> list[Row]:
        """The rows of all finished cases, in file order. An incomplete last line, left by a killed run, is ignored."""
        return read_rows(self.cases) if self.cases.exists() else []

    def cut_torn_line(self) -> None:
        """Remove an incomplete last line, so that `append` begins on a new line."""
        if self.cases.exists():
            cut_torn_line(self.cases)

    def append(self, rows: Sequence[Row]) -> None:
        """Append the rows of finished cases, and make sure that they are on disk."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self.cases.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    @property
    def status(self) -> Status | None:
        """The status, or None. A killed run keeps `running`, so only the lock tells whether a process is writing."""
        file = self.path / "status"
        return file.read_text(encoding="utf-8").strip() if file.exists() else None  # type: ignore[return-value]

    def set_status(self, status: Status) -> None:
        write_text(self.path / "status", status + "\n")

    def read(self, name: Literal["manifest", "summary"]) -> dict[str, Any] | None:
        """The content of `manifest.json` or `summary.json`; None if there is no such file.

        Raises:
            DataError: the file is not a JSON object.
        """
        file = self.path / f"{name}.json"
        if not file.exists():
            return None
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{file}: not JSON ({error})") from error
        if not isinstance(value, dict):
            raise DataError(f"{file}: expected a JSON object, found {type(value).__name__}")
        return value

    def write(self, name: Literal["manifest", "summary"], value: Mapping[str, Any]) -> None:
        write_text(self.path / f"{name}.json", json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_parquet(self, frame: pd.DataFrame) -> None:
        """Write `cases.parquet`. A process that is killed in between leaves the old file, not an incomplete one."""
        with replacing(self.path / "cases.parquet") as part:
            frame.to_parquet(part, index=False)
