"""Where a run reports to while it works: Weights & Biases, or nowhere. Results on disk do not depend on it."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlparse

from romexp.errors import ConfigError

Mode = Literal["auto", "online", "offline"]


class TrackedRun(Protocol):
    """One open run of a tracker."""

    @property
    def location(self) -> str:
        """A page or folder to look at; empty if there is none."""
        ...

    def log(self, values: Mapping[str, float]) -> None:
        """Add one step of curves."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set the run's final numbers."""
        ...

    def images(self, paths: Mapping[str, Path]) -> None:
        """Add pictures by name."""
        ...


class Tracker(Protocol):
    """Opens one run per job, inside the job, so that a multirun sweep has one run for each (config group `tracker`)."""

    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> AbstractContextManager[TrackedRun]:
        """A run that ends with the context: marked failed if an exception passes through.

        Args:
            folder: the run's result folder; files of the tracker go there.
            name: what the run is called in a list of runs.
            group: runs to be shown together.
            job_type: the task.
            config: every configuration value, resolved. `names`, if there, says by which names results are compared
                (`task`, `model`, `dataset`, `editor`, …): dashboards group by them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class NoTracker:
    """Report nowhere (`tracker=none`)."""

    @contextmanager
    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> Iterator[TrackedRun]:
        yield _Nowhere()


class _Nowhere:
    location = ""

    def log(self, values: Mapping[str, float]) -> None:
        return None

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        return None

    def summary(self, values: Mapping[str, Any]) -> None:
        return None

    def images(self, paths: Mapping[str, Path]) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """Weights & Biases (`tracker=wandb`).

    Attributes:
        project: W&B project.
        entity: user or team; None is the key's own.
        mode: `online`; `offline` (files only; `romexp task=sync` sends them); `auto`: what $WANDB_MODE says, else
            online where there is a key (WANDB_API_KEY or .netrc), else offline.
        group: heading under which W&B puts the run; None groups by model and data set.
        tags: free labels, beside those that every run gets: its task, model, data set and editor.
    """

    project: str = "romexp"
    entity: str | None = None
    mode: Mode = "auto"
    group: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "online", "offline"):
            raise ConfigError(f"tracker.mode: {self.mode!r} is not auto, online or offline")

    @contextmanager
    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> Iterator[TrackedRun]:
        import wandb  # half a second that a run without it should not pay

        mode = self._mode()
        run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=name,
            group=self.group or group,
            job_type=job_type,
            tags=self._all_tags(config.get("names") or {}),
            config=dict(config),
            dir=str(folder.absolute()),  # W&B's own process may work in another folder
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        # Not `with run`: that prints a traceback of whatever ends it. The run must be closed in any case, or the next
        # job of a sweep would be given this one again.
        exit_code = 1
        try:
            yield _WandbRun(run=run, online=mode == "online", folder=folder)
            exit_code = 0
        finally:
            run.finish(exit_code=exit_code)

    def _mode(self) -> Literal["online", "offline", "disabled"]:
        if self.mode != "auto":
            return self.mode
        wanted = os.environ.get("WANDB_MODE", "")
        if wanted in ("online", "offline", "disabled"):
            return wanted  # type: ignore[return-value]
        return "online" if has_wandb_key() else "offline"

    def _all_tags(self, names: Mapping[str, Any]) -> list[str]:
        """Own tags, then the run's names, each once. W&B takes tags of 1 to 64 characters."""
        return [tag[:64] for tag in dict.fromkeys((*self.tags, *(str(name) for name in names.values()))) if tag]


@dataclass(frozen=True)
class _WandbRun:
    run: Any
    online: bool
    folder: Path

    @property
    def location(self) -> str:
        # The folder that `wandb sync` wants is the parent of the run's `files`.
        return str(self.run.url) if self.online else str(self.folder / "wandb" / Path(self.run.dir).parent.name)

    def log(self, values: Mapping[str, float]) -> None:
        self.run.log(dict(values))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self.run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def summary(self, values: Mapping[str, Any]) -> None:
        self.run.summary.update(dict(values))

    def images(self, paths: Mapping[str, Path]) -> None:
        import wandb

        if paths:
            self.run.log({name: wandb.Image(str(path)) for name, path in paths.items()})


def has_wandb_key() -> bool:
    """Whether Weights & Biases would find a key: in WANDB_API_KEY, or in .netrc ($NETRC) for the server in use."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
