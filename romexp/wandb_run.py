"""One open run of Weights & Biases (`romexp.tracking`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from romexp.wandb_settings import short_reason

log = logging.getLogger(__name__)


@contextmanager
def no_loss() -> Iterator[None]:
    """Turn errors of W&B's own files and connections into a warning: results on disk do not depend on them."""
    import wandb

    try:
        yield
    except (OSError, wandb.Error) as error:
        log.warning("W&B did not take all of this run: %s", short_reason(error))


@dataclass(kw_only=True)
class WandbRun:
    """A run that `wandb.init` has opened, as a `romexp.tracking.TrackedRun`.

    Attributes:
        run: W&B's own run.
        files: the folder that `wandb sync` takes.
    """

    run: Any
    files: Path
    takes_images: ClassVar[bool] = True
    _axes: dict[str, str] = field(default_factory=dict, init=False)
    _charts: dict[str, dict[str, list[float]]] = field(default_factory=dict, init=False)

    @property
    def location(self) -> str:
        return str(self.files) if self.run.offline else str(self.run.url)

    def log(self, values: Mapping[str, float], *, step: int | None = None, axis: str = "step") -> None:
        """W&B counts its calls as steps, which must grow. So the place on another axis is a value beside the others."""
        with no_loss():
            if step is None:
                self.run.log(dict(values))
                return
            self._set_axis(values, axis)
            self.run.log({axis: step, **values})

    def _set_axis(self, names: Mapping[str, float], axis: str) -> None:
        """Tell W&B once for each curve over what it is drawn."""
        new = [name for name in names if self._axes.get(name) != axis]
        if axis not in self._axes.values():
            self.run.define_metric(axis, hidden=True)
        for name in new:
            self.run.define_metric(name, step_metric=axis)
        self._axes |= dict.fromkeys(new, axis)

    def lines(self, chart: str, lines: Mapping[str, Sequence[float]], *, axis: str) -> None:
        """One chart, which W&B draws from a table. Since the newest one is shown, it has the earlier lines too."""
        import wandb

        drawn = self._charts.setdefault(chart, {})
        drawn |= {name: list(values) for name, values in lines.items()}
        with no_loss():
            steps = [list(range(len(values))) for values in drawn.values()]
            plot = wandb.plot.line_series(
                xs=steps, ys=list(drawn.values()), keys=list(drawn), title=chart, xname=axis.replace("_", " ")
            )
            self.run.log({chart: plot})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        with no_loss():
            self.run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def summary(self, values: Mapping[str, Any]) -> None:
        with no_loss():
            self.run.summary.update(dict(values))

    def images(self, paths: Mapping[str, Path]) -> None:
        import wandb

        if paths:
            with no_loss():
                self.run.log({name: wandb.Image(str(path)) for name, path in paths.items()})
