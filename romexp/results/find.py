"""Results on disk, as reports see them: every run folder below a root, half done ones too (docs/method.md §11)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from romexp.errors import DataError
from romexp.results.rows import Row, read_rows
from romexp.results.settings import Json

SELECTION = ("limit", "offset", "shard", "case_ids")
"""Fields of a data set that choose cases: runs that differ in them alone are parts of one study."""

NO_MEASUREMENT = ("save_deltas",)
"""Parts of an identity that change what a run keeps, not what it measures."""


class _Identity(BaseModel):
    task: str = ""
    dataset: Json = {}
    editor: Json = {}


class _Manifest(BaseModel):
    """What reports read of a manifest, by type; anything else may stand there too."""

    identity: _Identity
    names: Mapping[str, str] = {}
    overrides: Sequence[str] = ()
    editor_label: str = ""
    dataset: Json = {}
    model: Json = {}
    set_aside: Sequence[Json] = ()
    rejected: Sequence[Json] = ()
    sessions: Sequence[Json] = ()


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """One run's folder. Nothing but its manifest has been read yet.

    Attributes:
        path: the folder.
        status: `running` (also where the process was killed), `done`, `failed`; empty if there is none.
        manifest: what `manifest.json` says.
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
        """What the run is called: `task`, and `model`, `dataset`, `editor` as far as the task has them."""
        return self.manifest.get("names", {})

    @property
    def task(self) -> str:
        """`edit`, `trace`, …"""
        return str(self.identity.get("task", ""))

    @property
    def editor_label(self) -> str:
        """The editor's row label in tables."""
        return str(self.manifest.get("editor_label") or self.names.get("editor", ""))

    def rows(self) -> list[Row]:
        """Every finished case, in file order.

        Raises:
            DataError: a line that is no row.
        """
        return read_rows(self.path / "cases.jsonl")

    @property
    def finished_at(self) -> str:
        """When it was last worked on, as ISO 8601 text that sorts by time; empty if unknown."""
        sessions = self.manifest.get("sessions") or [{}]
        return str(sessions[-1].get("finished") or sessions[-1].get("started") or "")

    @property
    def expected(self) -> int | None:
        """Cases that the run was to measure; None if the manifest does not say."""
        count = self.manifest.get("dataset", {}).get("cases")
        return count if isinstance(count, int) else None

    @property
    def set_aside(self) -> tuple[Json, ...]:
        """Cases that could not be edited or measured, with the reason."""
        return tuple(self.manifest.get("set_aside", ()))

    @property
    def rejected(self) -> tuple[Json, ...]:
        """Records that the loader refused, with the reason."""
        return tuple(self.manifest.get("rejected", ()))

    @property
    def overrides(self) -> tuple[str, ...]:
        """What the command line said: the same run can be asked for again."""
        return tuple(self.manifest.get("overrides", ()))

    @property
    def selection(self) -> Json:
        """Which cases were asked for: `limit`, `offset`, `shard`, `case_ids`, as far as the data set has them."""
        return {k: v for k, v in self.identity.get("dataset", {}).items() if k in SELECTION}

    def same_study(self) -> Json:
        """The identity without the choice of cases: equal for shards and for runs of other limits."""
        dataset = {k: v for k, v in self.identity.get("dataset", {}).items() if k not in SELECTION}
        return {k: v for k, v in self.identity.items() if k not in NO_MEASUREMENT} | {"dataset": dataset}


@dataclass(frozen=True, kw_only=True)
class Found:
    """Runs, by path, and a line for each folder that could not be read."""

    runs: tuple[FoundRun, ...]
    problems: tuple[str, ...]


def find_runs(roots: Sequence[Path]) -> Found:
    """Every folder at or below `roots` with a manifest and at least one finished case, in order of path.

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


def first_fault(error: ValidationError) -> str:
    """The first of a file's faults in words: `names.model: Input should be a valid string`."""
    first = error.errors()[0]
    return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))


def _read(folder: Path, file: Path) -> FoundRun:
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise DataError(f"{file}: not a run's manifest: it is no JSON object")
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        raise DataError(f"{file}: not a run's manifest ({first_fault(error)})") from error
    status = folder / "status"
    return FoundRun(
        path=folder,
        status=status.read_text(encoding="utf-8").strip() if status.is_file() else "",
        manifest=manifest,
    )
