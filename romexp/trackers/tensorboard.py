"""TensorBoard's event files in the run's folder (`tracker=tensorboard`): `tensorboard --logdir outputs`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from romexp.trackers.guard import Guarded, all_tags, as_yaml, begins, heading, library, numbers_in, texts_in
from romexp.tracking import TrackedRun

MOST_ROWS = 200
"""Most lines of a table, which TensorBoard shows as text."""


@dataclass(frozen=True, kw_only=True)
class TensorBoardTracker:
    """Writes event files to `<result folder>/tensorboard`.

    Attributes:
        tags: labels, which stand among the run's texts.
    """

    tags: tuple[str, ...] = ()
    label: ClassVar[str] = "TensorBoard run"

    @contextmanager
    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> Iterator[TrackedRun]:
        about = {
            "name": name,
            "group": heading(group, config),
            "job_type": job_type,
            "tags": all_tags(self.tags, config),
        }
        library("tensorboard", extra="tensorboard")
        module = library("torch.utils.tensorboard", extra="tensorboard")
        with begins("tensorboard"):
            writer = module.SummaryWriter(log_dir=str(folder / "tensorboard"))
            writer.add_text("run", _code(as_yaml(about)))
            writer.add_text("config", _code(as_yaml(config)))
        try:
            yield Guarded(_TensorBoardRun(writer), "tensorboard")
        finally:
            writer.close()


@dataclass
class _TensorBoardRun:
    writer: Any
    takes_images: ClassVar[bool] = True
    _step: int = field(default=0, init=False)
    _last: dict[str, float] = field(default_factory=dict, init=False)

    @property
    def location(self) -> str:
        return str(self.writer.log_dir)

    def log(self, values: Mapping[str, float], *, step: int | None = None, axis: str = "step") -> None:
        self._step = self._step + 1 if step is None else step
        self._last = dict(values)
        for name, value in values.items():
            self.writer.add_scalar(name, value, self._step)

    def lines(self, chart: str, lines: Mapping[str, Sequence[float]], *, axis: str) -> None:
        for name, line in lines.items():
            for step, value in enumerate(line):
                self.writer.add_scalar(f"{chart}/{name}", value, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        shown = [columns, ["---"] * len(columns), *rows[:MOST_ROWS]]
        text = "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in shown)
        more = f"\n\nthe first {MOST_ROWS} of {len(rows)}" if len(rows) > MOST_ROWS else ""
        self.writer.add_text(name, text + more, self._step)

    def summary(self, values: Mapping[str, Any]) -> None:
        for name, value in numbers_in(values).items():
            if self._last.get(name) != value:  # Otherwise it is the last point of its curve.
                self.writer.add_scalar(name, value, self._step)
        for name, text in texts_in(values).items():
            self.writer.add_text(name, text, self._step)

    def images(self, paths: Mapping[str, Path]) -> None:
        from matplotlib.image import imread

        for name, path in paths.items():
            self.writer.add_image(name, imread(path), self._step, dataformats="HWC")


def _code(text: str) -> str:
    """As Markdown that shows the text as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
