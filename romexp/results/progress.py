"""How far a run has come whose work has a fixed order, so that a killed run goes on bit for bit
(docs/method.md §13.3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from romexp.errors import DataError
from romexp.files import write_text
from romexp.results.folder import RunFolder
from romexp.results.rows import Row


@dataclass(kw_only=True)
class Progress:
    """Appends the rows of units of work, each unit completely or not at all.

    A unit that a killed process had begun is done again from its start, so that nothing depends on where it was killed:
    rows that it had written already are removed.

    Attributes:
        folder: the run's folder.
        done: number of finished units.
        size: size of the file of rows in bytes after these units.
        set_aside: items without a row, with the reasons.
    """

    folder: RunFolder
    done: int = 0
    size: int = 0
    set_aside: list[Mapping[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, folder: RunFolder) -> Progress:
        """Read the progress of an earlier process, if there is one, and cut what it had begun.

        Raises:
            DataError: the file is damaged, or rows that it counts are gone.
        """
        file = _file(folder)
        if not file.is_file():
            progress = cls(folder=folder)
        else:
            try:
                said = json.loads(file.read_text(encoding="utf-8"))
                progress = cls(folder=folder, done=said["done"], size=said["size"], set_aside=said["set_aside"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{file}: not a run's progress ({error}); delete the folder to begin again") from error
        held = folder.cases.stat().st_size if folder.cases.exists() else 0
        if held < progress.size:
            raise DataError(
                f"{folder.cases}: {held} bytes, but {file.name} counts {progress.size}: rows are lost, and a sequence "
                "cannot be measured again from its middle; delete the folder to begin again"
            )
        if held:
            with folder.cases.open("r+b") as rows:
                rows.truncate(progress.size)
        return progress

    def add(self, rows: Sequence[Row], set_aside: Sequence[Mapping[str, Any]] = ()) -> None:
        """Finish a unit: append its rows, and note that it is done."""
        if rows:
            self.folder.append(rows)
            self.size = self.folder.cases.stat().st_size
        self.done += 1
        self.set_aside.extend(set_aside)
        said = {"done": self.done, "size": self.size, "set_aside": self.set_aside}
        write_text(_file(self.folder), json.dumps(said) + "\n")


def _file(folder: RunFolder) -> Path:
    return folder.path / "progress.json"
