"""Curves of a run on disk: `curves.jsonl`, one point a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from romexp.files import write_text


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
