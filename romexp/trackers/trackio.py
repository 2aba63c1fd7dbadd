"""Trackio, Hugging Face's local dashboard over SQLite (`tracker=trackio`): `trackio show`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

from romexp.trackers.guard import Guarded, all_tags, begins, flat, heading, library
from romexp.tracking import TrackedRun


@dataclass(frozen=True, kw_only=True)
class TrackioTracker:
    """Reports each job as one run of a Trackio project.

    Where it is stored, Trackio's own variables say ($TRACKIO_DIR, $TRACKIO_SPACE_ID).

    Attributes:
        project: the Trackio project.
        tags: labels, which stand in the run's configuration, since Trackio has none.
    """

    project: str = "romexp"
    tags: tuple[str, ...] = ()
    label: ClassVar[str] = "Trackio run"

    @contextmanager
    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> Iterator[TrackedRun]:
        with redirect_stdout(StringIO()):  # It tells on stdout how to see the run, and stdout has results.
            trackio = library("trackio", extra="trackio")
        about = {"job_type": job_type, "tags": ", ".join(all_tags(self.tags, config)), "folder": str(folder)}
        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        with begins("trackio"), redirect_stdout(StringIO()):
            run = trackio.init(
                self.project, name=name, group=heading(group, config), config={**flat(config), **about}, **quiet
            )
        guarded = Guarded(_TrackioRun(trackio, run, f"project {self.project}, run {run.name}"), "trackio")
        try:
            yield guarded
        finally:
            with redirect_stdout(StringIO()):
                guarded.call(trackio.finish)


@dataclass
class _TrackioRun:
    trackio: Any
    run: Any
    location: str
    takes_images: ClassVar[bool] = True
    _step: int = field(default=0, init=False)

    def log(self, values: Mapping[str, float], *, step: int | None = None, axis: str = "step") -> None:
        self._step = self._step + 1 if step is None else step
        self.run.log(dict(values), step=self._step)

    def lines(self, chart: str, lines: Mapping[str, Sequence[float]], *, axis: str) -> None:
        for step in range(max(map(len, lines.values()), default=0)):
            here = {f"{chart}/{name}": line[step] for name, line in lines.items() if step < len(line)}
            self.run.log(here, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = self.trackio.Table(columns=list(columns), data=[list(row) for row in rows])
        self.run.log({name: table}, step=self._step)

    def summary(self, values: Mapping[str, Any]) -> None:
        self.run.log(dict(values), step=self._step)

    def images(self, paths: Mapping[str, Path]) -> None:
        if paths:
            pictures = {name: self.trackio.Image(str(path)) for name, path in paths.items()}
            self.run.log(pictures, step=self._step)
