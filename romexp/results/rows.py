"""Rows of a run, as they lie in `cases.jsonl`, one JSON object a line; and the points of `curves.jsonl`
(docs/method.md §11).
"""

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
"""A line as it stands in the file: a JSON object with an integer `case_id`. Traces are read as such."""

Side = Literal["pre", "post"]
"""Before or after the edit, as the file and summaries call it."""


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One case of `task=edit`: what was asked, and what was measured on the model before and after the edit.

    Attributes:
        case_id: the data set's id of the case.
        request: the edit.
        prompts: what the model was asked, by kind as in `before` and `after` (`rewrite_prompts`, …); for zsRE also the
            neighbours' answers. Rows that were written before there was this part have none.
        before: measurements on the unedited model; None where there are none.
        after: the same on the model that was edited for this case.
        edit: the editor's diagnostics.
        seconds: that the edit took, its share of a batch.
    """

    case_id: int
    request: EditRequest
    prompts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    before: Measurements | None = None
    after: Measurements | None = None
    edit: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def measured(self, side: Side) -> Measurements | None:
        """The measurements of one side."""
        return self.before if side == "pre" else self.after

    def is_complete(self, sides: Sequence[Side]) -> bool:
        """Whether the case was measured on all of these sides; one that failed was not."""
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
        """What `to_json` wrote; parts that are missing stay empty.

        Raises:
            DataError: a part is not of the type that it should be of.
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
    """Every complete row, in the order of the file. A torn last line, left by a killed run, is ignored.

    Where a case occurs twice the later row counts, at the place of the first: a case that failed may be tried again.

    Raises:
        DataError: no such file, or a line before the last one that is not an object with an integer `case_id`.
    """
    rows: dict[int, Row] = {}
    for row, _ in _complete(path):
        rows[row["case_id"]] = row
    return list(rows.values())


def cut_torn_line(path: Path) -> None:
    """Make the file end with a whole line, so that rows can be appended: cuts a torn last line off.

    Raises:
        DataError: as `read_rows`.
    """
    end = max((end for _, end in _complete(path)), default=0)
    with path.open("r+b") as file:
        file.truncate(end)
        file.seek(max(end - 1, 0))
        if end and file.read(1) != b"\n":  # the row is whole, only its line break was lost
            file.write(b"\n")


def _complete(path: Path) -> Iterator[tuple[Row, int]]:
    """Rows with the position in bytes after each; stops before a torn last line."""
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
            elif line.strip() and line.endswith(b"\n"):  # only the last line can lack its line break
                raise DataError(f"{path}, line {number}: expected a JSON object with an integer case_id")


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:  # not JSON, or cut inside a character
        return None
    has_id = isinstance(row, dict) and isinstance(row.get("case_id"), int)
    return row if has_id else None


@dataclass(frozen=True)
class Curves:
    """Points as mappings with a `step`. Creating the object touches nothing."""

    path: Path

    def rows(self) -> list[dict[str, float]]:
        """Every point in file order; a torn last line (a killed writer) is ignored."""
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
        """Forget the points after a step: a run that goes on from there makes them again."""
        if self.path.exists():
            kept = [row for row in self.rows() if row["step"] <= step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
