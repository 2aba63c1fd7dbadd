"""Several trackers at once (`tracker=many`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from romexp.errors import ConfigError
from romexp.tracking import TrackedRun, Tracker


@dataclass(frozen=True, kw_only=True)
class ManyTrackers:
    """Reports to each of several trackers.

    Attributes:
        trackers: the trackers by name; null stands for one that is left out.

    Raises:
        ConfigError: there is none.
    """

    trackers: Mapping[str, Tracker | None]
    label: ClassVar[str] = "tracked"

    def __post_init__(self) -> None:
        if not any(self.trackers.values()):
            raise ConfigError("tracker.trackers: there is none (tracker=none reports to nothing)")

    @contextmanager
    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> Iterator[TrackedRun]:
        about: dict[str, Any] = {"name": name, "group": group, "job_type": job_type, "config": config}
        with ExitStack() as stack:
            opened = [each.run(folder=folder, **about) for each in self.trackers.values() if each is not None]
            yield _ManyRuns([stack.enter_context(each) for each in opened])


@dataclass(frozen=True)
class _ManyRuns:
    runs: Sequence[TrackedRun]

    @property
    def location(self) -> str:
        return "\n".join(run.location for run in self.runs if run.location)

    @property
    def takes_images(self) -> bool:
        return any(run.takes_images for run in self.runs)

    def log(self, values: Mapping[str, float], *, step: int | None = None, axis: str = "step") -> None:
        for run in self.runs:
            run.log(values, step=step, axis=axis)

    def lines(self, chart: str, lines: Mapping[str, Sequence[float]], *, axis: str) -> None:
        for run in self.runs:
            run.lines(chart, lines, axis=axis)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for run in self.runs:
            run.table(name, columns, rows)

    def summary(self, values: Mapping[str, Any]) -> None:
        for run in self.runs:
            run.summary(values)

    def images(self, paths: Mapping[str, Path]) -> None:
        for run in self.runs:
            run.images(paths)
