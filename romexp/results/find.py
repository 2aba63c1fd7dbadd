"""Finds results on disk for reports: all run folders below a root, also of unfinished runs (docs/method.md §11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from romexp.errors import DataError
from romexp.files import read_json
from romexp.measured import first_fault
from romexp.os_errors import describe
from romexp.results.folder import read_status
from romexp.results.rows import Row, read_rows
from romexp.results.settings import Json

SELECTION = ("limit", "offset", "shard", "case_ids")
"""Fields of a data set that select cases. Runs that differ only in these fields are parts of one study."""

NO_MEASUREMENT = ("save_deltas",)
"""Parts of an identity that decide which files a run keeps, but not what it measures."""


class _Identity(BaseModel):
    task: str = ""
    dataset: Json = {}
    editor: Json = {}


class _Session(BaseModel):
    started: str = ""
    finished: str = ""
    timings: Mapping[str, float] = {}
    libraries: Mapping[str, str | None] = {}
    tracked_at: str = ""


class _Manifest(BaseModel):
    """The parts of a manifest that reports read, with their types. A manifest may have other parts too."""

    identity: _Identity
    names: Mapping[str, str] = {}
    overrides: Sequence[str] = ()
    editor_label: str = ""
    dataset: Json = {}
    model: Json = {}
    set_aside: Sequence[Json] = ()
    rejected: Sequence[Json] = ()
    settings_not_tuned: Json = {}
    sessions: Sequence[_Session] = ()
    hash: str = ""
    error: str = ""
    figures: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """The folder of one run. Only its manifest and status have been read.

    Attributes:
        path: the folder.
        status: `running` (also if the process was killed), `done` or `failed`; empty if there is no status file.
        manifest: the content of `manifest.json`.
    """

    path: Path
    status: str
    manifest: Json

    @property
    def identity(self) -> Json:
        """Everything that affects the result, by part: `model`, `dataset`, `editor`, …"""
        return self.manifest["identity"]

    @property
    def names(self) -> Json:
        """Names of the run's parts: `task`, and those of `model`, `dataset` and `editor` that the task has."""
        return self.manifest.get("names", {})

    @property
    def task(self) -> str:
        """The task's name: `edit`, `trace`, …"""
        return str(self.identity.get("task", ""))

    @property
    def editor_label(self) -> str:
        """The editor's row label in tables."""
        return str(self.manifest.get("editor_label") or self.names.get("editor", ""))

    def rows(self) -> list[Row]:
        """The rows of all finished cases, in file order.

        Raises:
            DataError: a line is not a row.
        """
        return read_rows(self.path / "cases.jsonl")

    @property
    def finished_at(self) -> str:
        """When its last session ended or, if that is unknown, began. ISO 8601 text that sorts by time; may be empty."""
        sessions = self.manifest.get("sessions") or [{}]
        return str(sessions[-1].get("finished") or sessions[-1].get("started") or "")

    @property
    def expected(self) -> int | None:
        """The number of cases that the run should measure; None if the manifest does not say it."""
        count = self.manifest.get("dataset", {}).get("cases")
        return count if isinstance(count, int) else None

    @property
    def set_aside(self) -> tuple[Json, ...]:
        """Cases that could not be edited or measured, with the reasons."""
        return tuple(self.manifest.get("set_aside", ()))

    @property
    def rejected(self) -> tuple[Json, ...]:
        """Records that the loader refused, with the reasons."""
        return tuple(self.manifest.get("rejected", ()))

    @property
    def settings_not_tuned(self) -> Json:
        """Settings of the editor that belong to another model, by name; empty if there are none or it is not known."""
        return dict(self.manifest.get("settings_not_tuned", {}))

    @property
    def overrides(self) -> tuple[str, ...]:
        """The arguments of the run's command. The same arguments continue the run."""
        return tuple(self.manifest.get("overrides", ()))

    @property
    def selection(self) -> Json:
        """The selection of cases: those of `limit`, `offset`, `shard` and `case_ids` that the data set has."""
        return {k: v for k, v in self.identity.get("dataset", {}).items() if k in SELECTION}

    def same_study(self) -> Json:
        """The identity without the selection of cases. It is equal for shards, and for runs with different limits."""
        dataset = {k: v for k, v in self.identity.get("dataset", {}).items() if k not in SELECTION}
        return {k: v for k, v in self.identity.items() if k not in NO_MEASUREMENT} | {"dataset": dataset}


@dataclass(frozen=True, kw_only=True)
class Found:
    """The runs in order of path, and a message for each folder that could not be read."""

    runs: tuple[FoundRun, ...]
    problems: tuple[str, ...]


def find_runs(roots: Sequence[Path]) -> Found:
    """Find all folders at or below `roots` that have a manifest and a `cases.jsonl`, in order of path.

    Raises:
        DataError: a root does not exist.
    """
    runs: dict[Path, FoundRun] = {}
    problems: list[str] = []
    for root in roots:
        if not root.is_dir():
            raise DataError(f"no folder {root}")
        for file in sorted(root.rglob("manifest.json")):
            folder = file.parent
            if not (folder / "cases.jsonl").is_file():
                continue
            try:
                runs[folder.resolve()] = _read(folder, file)
            except DataError as error:
                problems.append(str(error))
    return Found(runs=tuple(runs[path] for path in sorted(runs)), problems=tuple(problems))


def _read(folder: Path, file: Path) -> FoundRun:
    try:
        manifest = read_json(file)
        status = read_status(folder / "status")
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error})") from error
    except OSError as error:
        raise DataError(describe(error)) from error
    check_manifest(manifest, file)
    return FoundRun(path=folder, status=status, manifest=manifest)


def check_manifest(manifest: Any, file: Path) -> None:
    """Make sure that the parts of a manifest that romexp reads have their types.

    Raises:
        DataError: it is not a manifest.
    """
    if not isinstance(manifest, dict):
        raise DataError(f"{file}: not a run's manifest: it is not a JSON object")
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        raise DataError(f"{file}: not a run's manifest ({first_fault(error)})") from error
