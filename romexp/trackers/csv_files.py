"""CSV files in the run's folder, for pandas, a spreadsheet or a script (`tracker=csv`)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from romexp.files import write_text
from romexp.trackers.guard import Guarded, all_tags, as_yaml, begins, heading
from romexp.tracking import TrackedRun

METRICS, SUMMARY, ABOUT = "metrics.csv", "summary.csv", "run.yaml"
STEP = "step"


@dataclass(frozen=True, kw_only=True)
class CsvTracker:
    """Writes `<result folder>/csv`: `metrics.csv` with a line for each step, `summary.csv`, a file for each table.

    A run that is continued continues its steps. Pictures are beside it, in the folder `figures`.

    Attributes:
        tags: labels, which `run.yaml` names.
    """

    tags: tuple[str, ...] = ()
    label: ClassVar[str] = "CSV files"

    @contextmanager
    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> Iterator[TrackedRun]:
        files = folder / "csv"
        about = {
            "name": name,
            "group": heading(group, config),
            "job_type": job_type,
            "tags": all_tags(self.tags, config),
        }
        with begins("csv"):
            write_text(files / ABOUT, as_yaml(about))
            run = _CsvRun(files)
        yield Guarded(run, "csv")


class _CsvRun:
    def __init__(self, files: Path) -> None:
        self.files = files
        self._columns: list[str] = [STEP]
        self._step = 0
        if (file := files / METRICS).is_file():
            kept = _read(file)
            self._columns = list(kept[0]) if kept else [STEP]
            self._step = max((int(row[STEP]) for row in kept), default=0)

    @property
    def location(self) -> str:
        return str(self.files)

    def log(self, values: Mapping[str, float]) -> None:
        self._step += 1
        file, row = self.files / METRICS, {STEP: self._step, **values}
        more = [name for name in row if name not in self._columns]
        if more or not file.is_file():  # The heading changes, so the file is written again.
            kept = _read(file) if file.is_file() else []
            self._columns += more
            _write(file, self._columns, ([each.get(name, "") for name in self._columns] for each in (*kept, row)))
            return
        with file.open("a", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerow([row.get(name, "") for name in self._columns])

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        _write(self.files / f"{name.replace('/', '_')}.csv", columns, rows)

    def summary(self, values: Mapping[str, Any]) -> None:
        _write(self.files / SUMMARY, ("name", "value"), values.items())

    def images(self, paths: Mapping[str, Path]) -> None:
        return None


def _read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _write(file: Path, columns: Sequence[str], rows: Any) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
