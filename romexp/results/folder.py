"""Writes and reads the files of one run, so that it survives a kill and has only one writer (docs/method.md §11)."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from romexp.errors import ConfigError, DataError
from romexp.files import PART, read_json, replacing, write_text
from romexp.os_errors import describe, path_in_errors
from romexp.redact import without_secrets_in
from romexp.results.rows import Row, read_rows, set_damaged_lines_aside

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
            place = Path(error.filename or self.path)  # the folder itself, or one above it
            line = describe(error, {"output_dir or outputs": place})
            raise ConfigError(f"output_dir: cannot write into {line}") from error
        try:
            yield
        finally:
            lock.release()

    def rows(self) -> list[Row]:
        """The rows of all finished cases, in file order. An incomplete last line, left by a killed run, is ignored."""
        return read_rows(self.cases) if self.cases.exists() else []

    def good_rows(self, fault: Callable[[Row], str]) -> list[Row]:
        """The rows in which `fault` finds nothing wrong, in file order."""
        return [row for row in self.rows() if not fault(row)]

    def prepare_to_append(self) -> None:
        """Remove what killed processes have left: an incomplete last row, and files that were being written.

        Damaged lines are moved to `cases.jsonl.damaged`, so that their cases count as not measured.
        """
        for left_over in self.path.glob(f"*{PART}"):
            if left_over.is_file():
                left_over.unlink()
        if self.cases.exists() and (lines := set_damaged_lines_aside(self.cases)):
            numbers = ", ".join(map(str, lines[:5])) + (", …" if len(lines) > 5 else "")
            log.warning("%s: line %s is no row; moved to %s.damaged", self.cases, numbers, self.cases.name)

    def append(self, rows: Sequence[Row]) -> None:
        """Append the rows of finished cases, and make sure that they are on disk."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # A half of a surrogate pair is written as `\\udXXX`, as `romexp.files.write_text` does.
        with path_in_errors(self.cases), self.cases.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    @property
    def status(self) -> Status | None:
        """The status, or None. A killed run keeps `running`, so only the lock tells whether a process is writing."""
        return read_status(self.path / "status") or None  # type: ignore[return-value]

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
            value = read_json(file)
        except ValueError as error:
            raise DataError(f"{file}: not JSON ({error})") from error
        if not isinstance(value, dict):
            raise DataError(f"{file}: expected a JSON object, found {type(value).__name__}")
        return value

    def write(self, name: Literal["manifest", "summary"], value: Mapping[str, Any]) -> None:
        """Write the file. Passwords of URLs are left out, wherever they stand."""
        clean = without_secrets_in(value)
        write_text(self.path / f"{name}.json", json.dumps(clean, indent=2, ensure_ascii=False) + "\n")

    def write_parquet(self, frame: pd.DataFrame) -> None:
        """Write `cases.parquet`. A process that is killed in between leaves the old file, not an incomplete one."""
        with replacing(self.parquet) as part:
            frame.to_parquet(part, index=False)

    @property
    def parquet(self) -> Path:
        """The metrics by case, made from the rows."""
        return self.path / "cases.parquet"

    def has_parquet_of(self, count: int) -> bool:
        """Whether `cases.parquet` is there and has that many lines."""
        from pyarrow import ArrowException, parquet  # This import takes long, and most tasks have no such file.

        try:
            return int(parquet.read_metadata(self.parquet).num_rows) == count
        except (OSError, ArrowException):
            return False


def read_status(file: Path) -> str:
    """The word in a file `status`; empty if there is no such file. A damaged file gives a word that is no status."""
    return file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""
