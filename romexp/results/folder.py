"""The files of one run
(docs/method.md §11): who may write them, how they survive a kill. Rows are read by `results.rows`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from filelock import FileLock, Timeout

from romexp.errors import ConfigError, DataError
from romexp.files import replacing, write_text
from romexp.results.rows import Row, cut_torn_line, read_rows

Status = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class RunFolder:
    """A folder of results, by the names that docs/method.md §11 fixes. Creating the object touches nothing."""

    path: Path

    @property
    def cases(self) -> Path:
        """The truth: one line a case, appended batch by batch."""
        return self.path / "cases.jsonl"

    def delta(self, case_id: int) -> Path:
        """Where the delta of one case lies (`save_deltas=true`)."""
        return self.path / "deltas" / f"{case_id}.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer for as long as the context lasts. The lock ends with the process, however that ends.

        Raises:
            ConfigError: another process is writing into this folder, or the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
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
        """Every finished case, in file order; a torn last line (a killed writer) is ignored."""
        return read_rows(self.cases) if self.cases.exists() else []

    def cut_torn_line(self) -> None:
        """Cut a torn last line off, so that `append` begins on a fresh line."""
        if self.cases.exists():
            cut_torn_line(self.cases)

    def append(self, rows: Sequence[Row]) -> None:
        """Add finished cases and make sure that they are on disk."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self.cases.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    @property
    def status(self) -> Status | None:
        """`running` is what a killed run says too: only the lock tells whether somebody still writes."""
        file = self.path / "status"
        return file.read_text(encoding="utf-8").strip() if file.exists() else None  # type: ignore[return-value]

    def set_status(self, status: Status) -> None:
        write_text(self.path / "status", status + "\n")

    def read(self, name: Literal["manifest", "summary"]) -> dict[str, Any] | None:
        """`manifest.json` or `summary.json`; None where there is none.

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
        """`cases.parquet`: written whole, then moved into place, since a cut file would be unreadable."""
        with replacing(self.path / "cases.parquet") as part:
            frame.to_parquet(part, index=False)
