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

METRICS, SUMMARY, IMAGES, ABOUT = "metrics.csv", "summary.csv", "images.csv", "run.yaml"
STEP = "step"


@dataclass(frozen=True, kw_only=True)
class CsvTracker:
    """Writes `<result folder>/csv`: `metrics.csv` with a line for each point, `summary.csv`, a file for each table and
    each chart of lines. A run that is continued continues its files.

    It takes no pictures: `images.csv` says where those are that the run draws anyway.

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
    takes_images = False

    def __init__(self, files: Path) -> None:
        self.files = files
        self._columns: list[str] = []
        self._step = 0
        if (file := files / METRICS).is_file() and (kept := _read(file)):
            self._columns = list(kept[0])
            self._step = max((int(row[STEP]) for row in kept if row.get(STEP)), default=0)

    @property
    def location(self) -> str:
        return str(self.files)

    def log(self, values: Mapping[str, float], *, step: int | None = None, axis: str = STEP) -> None:
        if axis == STEP:
            self._step = step = self._step + 1 if step is None else step
        file, row = self.files / METRICS, {axis: step, **values}
        more = [name for name in row if name not in self._columns]
        if more or not file.is_file():  # The heading changes, so the file is written again.
            kept = _read(file) if file.is_file() else []
            self._columns += more
            _write(file, self._columns, ([each.get(name, "") for name in self._columns] for each in (*kept, row)))
            return
        with file.open("a", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerow([row.get(name, "") for name in self._columns])

    def lines(self, chart: str, lines: Mapping[str, Sequence[float]], *, axis: str) -> None:
        """The file of the chart has a line for each point."""
        file = _file(self.files, chart)
        is_new = not file.is_file()
        with file.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            if is_new:
                writer.writerow(("line", axis, chart))
            writer.writerows((name, step, value) for name, line in lines.items() for step, value in enumerate(line))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        _write(_file(self.files, name), columns, rows)

    def summary(self, values: Mapping[str, Any]) -> None:
        _write(self.files / SUMMARY, ("name", "value"), values.items())

    def images(self, paths: Mapping[str, Path]) -> None:
        kept = {name: path for name, path in paths.items() if path.is_relative_to(self.files.parent)}
        if kept:
            _write(self.files / IMAGES, ("name", "path"), kept.items())


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '_')}.csv"


def _read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _write(file: Path, columns: Sequence[str], rows: Any) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
