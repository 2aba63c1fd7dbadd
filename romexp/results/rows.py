"""Rows of a run, which are the lines of `cases.jsonl`, and points of training curves (docs/method.md §11.1, §11.2)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from romexp.errors import DataError
from romexp.facts import EditRequest, Measurements
from romexp.files import write_text

Row = dict[str, Any]
"""A parsed line of the file: a JSON object with an integer `case_id`."""

Side = Literal["pre", "post"]
"""Before or after the edit. These are the names in the files and in summaries."""


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One case of `task=edit`: its prompts, and the measurements on the model before and after the edit.

    Attributes:
        case_id: the data set's id of the case.
        request: the edit.
        prompts: the prompts by kind (`rewrite_prompts`, …), as in `before` and `after`; for zsRE also the answers to
            the neighbourhood prompts. Empty for rows of an older version.
        before: measurements on the unedited model; None if there are none.
        after: measurements on the model that was edited for this case; None if there are none.
        edit: the editor's diagnostics.
        seconds: the editing time of the batch, divided by its number of cases.
    """

    case_id: int
    request: EditRequest
    prompts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    before: Measurements | None = None
    after: Measurements | None = None
    edit: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def measured(self, side: Side) -> Measurements | None:
        """The measurements before (`pre`) or after (`post`) the edit."""
        return self.before if side == "pre" else self.after

    def is_complete(self, sides: Sequence[Side]) -> bool:
        """Whether the case has the measurements of all these sides. A case that failed has not."""
        return all(self.measured(side) is not None for side in sides)

    def to_json(self) -> Row:
        """The line of `cases.jsonl`."""
        return {
            "case_id": self.case_id,
            "requested_rewrite": asdict(self.request),
            "prompts": {kind: list(texts) for kind, texts in self.prompts.items()},
            "pre": self.before,
            "post": self.after,
            "edit": dict(self.edit),
            "time": round(self.seconds, 6),
        }

    @classmethod
    def from_json(cls, row: Row) -> CaseResult:
        """Read a line that `to_json` made. Missing parts stay empty.

        Raises:
            DataError: a part has a wrong type.
        """
        request, prompts = _object(row, "requested_rewrite") or {}, _object(row, "prompts") or {}
        names = ("subject", "prompt", "target_new", "target_true", "relation_id", "target_new_id")
        return cls(
            case_id=row["case_id"],
            request=EditRequest(**{name: str(request.get(name, "")) for name in names}),
            prompts={kind: list(map(str, texts)) for kind, texts in prompts.items() if isinstance(texts, list)},
            before=_object(row, "pre"),
            after=_object(row, "post"),
            edit=_object(row, "edit") or {},
            seconds=float(row.get("time") or 0.0),
        )


def _object(row: Row, key: str) -> dict[str, Any] | None:
    value = row.get(key)
    if value is not None and not isinstance(value, dict):
        raise DataError(f"{key}: expected an object, found {type(value).__name__}")
    return value


def read_rows(path: Path) -> list[Row]:
    """All complete rows, in file order. An incomplete last line, left by a killed run, is ignored.

    A case that failed may be tried again. If a case occurs twice, the later row replaces the first, at its place. Rows
    of `task=lifelong` count as different cases if they have different `measured_at`.

    Raises:
        DataError: there is no such file, or a complete line is not a JSON object with an integer `case_id`.
    """
    rows: dict[tuple[int, Any], Row] = {}
    for row, _ in _complete(path):
        rows[row["case_id"], row.get("measured_at")] = row
    return list(rows.values())


def cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line of the file, so that rows can be appended.

    Raises:
        DataError: for the same reasons as in `read_rows`.
    """
    end = max((end for _, end in _complete(path)), default=0)
    with path.open("r+b") as file:
        file.truncate(end)
        file.seek(max(end - 1, 0))
        if end and file.read(1) != b"\n":  # The row is complete, and only its line break is missing.
            file.write(b"\n")


def _complete(path: Path) -> Iterator[tuple[Row, int]]:
    """Each complete row, with the position in bytes after its line. It stops before an incomplete last line."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    end = 0
    with file:
        for number, line in enumerate(file, start=1):
            end += len(line)
            row = _parse(line)
            if row is not None:
                yield row, end
            elif line.strip() and line.endswith(b"\n"):  # Only the last line can lack its line break.
                raise DataError(f"{path}, line {number}: expected a JSON object with an integer case_id")


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:  # The line is not JSON, or ends inside a character.
        return None
    has_id = isinstance(row, dict) and isinstance(row.get("case_id"), int)
    return row if has_id else None


@dataclass(frozen=True)
class Curves:
    """The file `curves.jsonl` of training curves. Each point is a mapping with a `step`.

    Creating the object reads and writes nothing.
    """

    path: Path

    def rows(self) -> list[dict[str, float]]:
        """All points in file order. An incomplete last line, left by a killed run, is ignored."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def append(self, point: Mapping[str, float]) -> None:
        """Add one point."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(point)) + "\n")

    def cut(self, step: int) -> None:
        """Remove the points after a step. A run that continues from this step makes them again."""
        if self.path.exists():
            kept = [row for row in self.rows() if row["step"] <= step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
