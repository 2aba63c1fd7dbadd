"""Rows of a run, as they lie in `cases.jsonl`: one JSON object a line (DESIGN §5)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romexp.errors import DataError
from romexp.files import write_text

Row = dict[str, Any]
"""One case: `case_id`, and `pre` and `post` with an evaluator's measurements. A failed case lacks one of them.

Those of `task=edit` have `requested_rewrite`, `edit`, `time`, and `prompts`, which early ones lack.
"""


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


def mend(path: Path) -> None:
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


def prompts_in(row: Row) -> dict[str, list[str]]:
    """What the model was asked, by kind as in `pre` and `post` (`rewrite_prompts`, …); empty in an early row."""
    prompts = row.get("prompts")
    if not isinstance(prompts, dict):
        return {}
    return {kind: list(map(str, texts)) for kind, texts in prompts.items() if isinstance(texts, list)}


def complete(row: Row, sides: Sequence[str]) -> bool:
    """Whether a case was measured on all `sides` (of `pre`, `post`); one that failed was not."""
    return all(isinstance(row.get(side), dict) for side in sides)


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
