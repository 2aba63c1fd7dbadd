"""Rows of a run, which are the lines of `cases.jsonl`, and points of training curves (docs/method.md §11.1, §11.2)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic_core import from_json

from romexp.errors import DataError
from romexp.facts import LARGEST_ID, EditRequest, Measurements
from romexp.files import replacing, write_text
from romexp.measured import fault_of
from romexp.os_errors import describe, path_in_errors

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
            DataError: a part has a wrong type, or what was measured has not the form of measurements.
        """
        request, prompts = _object(row, "requested_rewrite") or {}, _object(row, "prompts") or {}
        names = ("subject", "prompt", "target_new", "target_true", "relation_id", "target_new_id")
        return cls(
            case_id=row["case_id"],
            request=EditRequest(**{name: str(request.get(name, "")) for name in names}),
            prompts={kind: list(map(str, texts)) for kind, texts in prompts.items() if isinstance(texts, list)},
            before=_measured(row, "pre"),
            after=_measured(row, "post"),
            edit=_object(row, "edit") or {},
            seconds=_seconds(row),
        )


def edit_row_fault(row: Row) -> str:
    """Why a row of `task=edit` does not count as that of a finished case; empty if it does."""
    try:
        result = CaseResult.from_json(row)
    except DataError as error:
        return str(error)
    missing = [side for side in ("pre", "post") if result.measured(side) is None]  # type: ignore[arg-type]
    return f"{' and '.join(missing)}: missing" if missing else ""


def _measured(row: Row, key: str) -> dict[str, Any] | None:
    value = _object(row, key)
    if value is not None and (fault := fault_of(value)):
        raise DataError(f"{key}.{fault}")
    return value


def _seconds(row: Row) -> float:
    value = row.get("time") or 0.0
    if not isinstance(value, (int, float)):
        raise DataError(f"time: expected a number, found {type(value).__name__}")
    return float(value)


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
    for number, line, row in _lines(path):
        if row is not None:
            rows[row["case_id"], row.get("measured_at")] = row
        elif line.strip() and line.endswith(b"\n"):  # Only the last line can lack its line break.
            raise DataError(f"{path}, line {number}: expected a JSON object with an integer case_id")
    return list(rows.values())


def rows_with_places(path: Path) -> Iterator[tuple[int, int, Row]]:
    """Each complete row with the position of its line in the file and the line's length, in bytes, one at a time.

    If a case occurs twice, both rows come; the later one counts (`read_rows`).

    Raises:
        DataError: as `read_rows`, when the fault is reached.
    """
    position = 0
    for number, line, row in _lines(path):
        if row is not None:
            yield position, len(line), row
        elif line.strip() and line.endswith(b"\n"):
            raise DataError(f"{path}, line {number}: expected a JSON object with an integer case_id")
        position += len(line)


def row_at(path: Path, position: int, length: int) -> Row:
    """The row that `rows_with_places` found at this place.

    Raises:
        DataError: there is no such row any more.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # A report reads tens of thousands of single rows.
            file.seek(position)
            row = _parse(file.read(length))
    except OSError as error:
        raise DataError(describe(error)) from error
    if row is None:
        raise DataError(f"{path}: was changed while it was read")
    return row


def set_damaged_lines_aside(path: Path) -> list[int]:
    """Remove an incomplete last line, so that rows can be appended, and move every other line that is no row away.

    They go to a file beside it (`<name>.damaged`), since they may be of use to somebody.

    Returns:
        The numbers of the lines that were moved, from 1.

    Raises:
        DataError: there is no such file.
    """
    end, position, damaged = 0, 0, {}
    for number, line, row in _lines(path):
        position += len(line)
        if row is not None:
            end = position
        elif line.strip() and line.endswith(b"\n"):
            damaged[number] = line
    if damaged:
        kept = [line.rstrip(b"\n") + b"\n" for _, line, row in _lines(path) if row is not None]
        with path.with_name(f"{path.name}.damaged").open("ab") as aside:
            aside.writelines(damaged.values())
        with replacing(path) as part:
            part.write_bytes(b"".join(kept))
        return list(damaged)
    with path_in_errors(path), path.open("r+b") as file:
        file.truncate(end)
        file.seek(max(end - 1, 0))
        if end and file.read(1) != b"\n":  # The row is complete, and only its line break is missing.
            file.write(b"\n")
    return []


def _lines(path: Path) -> Iterator[tuple[int, bytes, Row | None]]:
    """Number (from 1), bytes and row of each line; None in place of the row where the line is none."""
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except OSError as error:
        raise DataError(describe(error)) from error
    with file:
        for number, line in enumerate(file, start=1):
            yield number, line, _parse(line)


def _parse(line: bytes) -> Row | None:
    try:
        row = from_json(line)  # It takes half the time of `json.loads`.
    except ValueError:
        try:
            row = json.loads(line)  # It takes what the other does not, such as half a surrogate pair.
        except (ValueError, RecursionError):  # The line is not JSON, or ends inside a character.
            return None
    number = row.get("case_id") if isinstance(row, dict) else None
    return row if type(number) is int and abs(number) <= LARGEST_ID else None


@dataclass(frozen=True)
class Curves:
    """The file `curves.jsonl` of training curves. Each point is a mapping with a `step`.

    Creating the object reads and writes nothing.
    """

    path: Path

    def rows(self) -> list[dict[str, float]]:
        """All points in file order. What is no point is ignored, as an incomplete last line of a killed run."""
        if not self.path.exists():
            return []
        points = map(_point, self.path.read_bytes().splitlines())
        return [point for point in points if point is not None]

    def append(self, point: Mapping[str, float]) -> None:
        """Add one point."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with path_in_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(point)) + "\n")

    def cut(self, step: int) -> None:
        """Remove the points after a step. A run that continues from this step makes them again."""
        if self.path.exists():
            kept = [row for row in self.rows() if row["step"] <= step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))


def _point(line: bytes) -> dict[str, float] | None:
    try:
        point = json.loads(line)
    except (ValueError, RecursionError):
        return None
    values = [point.get("step"), *point.values()] if isinstance(point, dict) else [None]
    return point if all(isinstance(value, (int, float)) for value in values) else None
