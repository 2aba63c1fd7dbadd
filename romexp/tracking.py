"""Reports the progress of a run to Weights & Biases, or to nothing. Results on disk do not depend on it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from filelock import FileLock

from romexp.errors import ConfigError
from romexp.redact import command_without_secrets
from romexp.wandb_run import WandbRun, no_loss
from romexp.wandb_settings import WantedMode, has_wandb_key, short_reason, wandb_setting, wanted_mode

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline"]

INIT_TIMEOUT_S = 30.0
"""Seconds in which W&B's server must answer when a run begins, unless WANDB_INIT_TIMEOUT says it."""

_no_server: set[str] = set()
"""Addresses of W&B servers that did not take a run of this process; later jobs of a sweep do not ask them again."""


class TrackedRun(Protocol):
    """One open run of a tracker."""

    @property
    def location(self) -> str:
        """The address of the run's page, or the path of its folder; empty if there is neither. A line for each of
        several."""
        ...

    def log(self, values: Mapping[str, float], *, step: int | None = None, axis: str = "step") -> None:
        """Add one point to the curves of these values.

        Args:
            step: the point's place on the horizontal axis; None takes the next one.
            axis: what `step` counts, for example `n_cases`.
        """
        ...

    def lines(self, chart: str, lines: Mapping[str, Sequence[float]], *, axis: str) -> None:
        """Add finished lines to a chart, each a list of values at 0, 1, 2, … of `axis`."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table."""
        ...

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set the run's final numbers."""
        ...

    def images(self, paths: Mapping[str, Path]) -> None:
        """Add pictures by name."""
        ...

    @property
    def takes_images(self) -> bool:
        """Whether pictures are shown. If not, nothing is drawn only for the tracker."""
        ...


class Tracker(Protocol):
    """Opens runs of a tracker (config group `tracker`). Each job of a sweep opens its own run.

    Attributes:
        label: what the command calls a run of this tracker where it says where the run is.
    """

    @property
    def label(self) -> str: ...

    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> AbstractContextManager[TrackedRun]:
        """A run that lasts as long as the context. If an exception leaves the context, the run is marked as failed.

        Args:
            folder: the result folder. The tracker writes its files there too.
            name: the run's name in a list of runs.
            group: a heading. Runs with the same heading are shown together.
            job_type: the task.
            config: all configuration values, resolved. If it has `names` (`task`, `model`, `dataset`, `editor`, …),
                dashboards group runs by these.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class NoTracker:
    """Reports nothing (`tracker=none`)."""

    label: ClassVar[str] = ""

    @contextmanager
    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> Iterator[TrackedRun]:
        yield _UntrackedRun()


class _UntrackedRun:
    location = ""
    takes_images = False

    def log(self, values: Mapping[str, float], *, step: int | None = None, axis: str = "step") -> None:
        return None

    def lines(self, chart: str, lines: Mapping[str, Sequence[float]], *, axis: str) -> None:
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
        project: the W&B project; None takes that of W&B's own settings ($WANDB_PROJECT), else `romexp`.
        entity: the W&B user or team; None takes that of W&B's own settings ($WANDB_ENTITY), else the default of the
            API key.
        mode: `online`; or `offline`, which only writes files that `romexp task=sync` can send later; or `auto`, which
            does what the user has told W&B (`wanted_mode`), else `online` if there is a key (see `has_wandb_key`), else
            `offline`. If the server does not take an `online` run, the run continues `offline`.
        group: heading under which W&B shows the run; None takes $WANDB_RUN_GROUP, else groups runs by model and data
            set.
        tags: labels in addition to those that every run gets: its task, model, data set and editor, and $WANDB_TAGS.

    Raises:
        ConfigError: `mode` is unknown, or is `auto` and WANDB_MODE or WANDB_DISABLED holds an unknown word.
    """

    project: str | None = None
    entity: str | None = None
    mode: Mode = "auto"
    group: str | None = None
    tags: tuple[str, ...] = ()
    label: ClassVar[str] = "W&B run"

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "online", "offline"):
            raise ConfigError(f"tracker.mode: {self.mode!r} is not auto, online or offline")
        self.wanted_mode()

    def wanted_mode(self) -> WantedMode:
        """The mode in which a run begins. Only in `online` mode anything is sent to W&B's server."""
        if self.mode != "auto":
            return self.mode
        return wanted_mode() or ("online" if has_wandb_key() else "offline")

    def destination(self) -> tuple[str | None, str]:
        """Entity and project of the runs; the entity None is the default of the API key."""
        return self.entity or wandb_setting("entity"), self.project or wandb_setting("project") or "romexp"

    @contextmanager
    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> Iterator[TrackedRun]:
        if (mode := self.wanted_mode()) == "disabled":
            yield _UntrackedRun()
            return
        root = Path(os.environ.get("WANDB_DIR") or folder).expanduser()
        entity, project = self.destination()
        with _clean_arguments():
            run = _begin(
                mode,
                entity=entity,
                project=project,
                name=name,
                group=self.group or os.environ.get("WANDB_RUN_GROUP") or group,
                job_type=job_type,
                tags=self._all_tags(config.get("names") or {}),
                config=dict(config),
                dir=str(root.absolute()),  # The process that W&B starts may have another working directory.
            )
        # `with run` is not used, because it prints a traceback of every exception. The run must always be finished.
        # Otherwise `wandb.init` in the next job of a sweep would return this run again.
        exit_code, files = 1, Path(run.dir).parent
        if not files.resolve().is_relative_to(root.resolve()):  # W&B takes a temporary folder then, and says nothing
            log.warning("W&B cannot write into %s: its run is in %s", root, files)
        # Outside of the result folder, whose lock says the same, `task=sync` must see that the run is being written.
        lock: AbstractContextManager[Any] = nullcontext() if root == folder else FileLock(files / ".lock")
        try:
            with lock:
                yield WandbRun(run=run, files=_as_given(files, root))
            exit_code = 0
        finally:
            with no_loss():
                run.finish(exit_code=exit_code)

    def _all_tags(self, names: Mapping[str, Any]) -> list[str]:
        """The configured tags, then the run's names, without duplicates. W&B accepts tags of 1 to 64 characters."""
        given = (*self.tags, *os.environ.get("WANDB_TAGS", "").split(","), *map(str, names.values()))
        return [tag[:64] for tag in dict.fromkeys(map(str.strip, given)) if tag]


@contextmanager
def _clean_arguments() -> Iterator[None]:
    """Inside the context, the arguments of the command have no passwords of URLs. W&B sends them to its server."""
    given = sys.argv
    sys.argv = command_without_secrets(given)
    try:
        yield
    finally:
        sys.argv = given


def _begin(mode: Literal["online", "offline"], **arguments: Any) -> Any:
    """Open a run of W&B; offline if the server does not take it, with a warning.

    Raises:
        ConfigError: W&B refuses the arguments or its own settings.
    """
    import wandb  # This import takes half a second, and a run without W&B does not need it.

    if not os.environ.get("WANDB_MODE", "").strip():  # W&B refuses an empty word
        os.environ.pop("WANDB_MODE", None)
    settings: dict[str, Any] = {"silent": True, "console": "off"}
    server = wandb_setting("base_url") or ""
    if mode == "online" and server not in _no_server:
        timeout = {} if "WANDB_INIT_TIMEOUT" in os.environ else {"init_timeout": INIT_TIMEOUT_S}
        try:
            wandb.setup(wandb.Settings(silent=True))
            return wandb.init(mode="online", settings=wandb.Settings(**(settings | timeout)), **arguments)
        except Exception as error:  # Whatever goes wrong there, the results do not depend on it.
            _no_server.add(server)
            logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # It fails to reach the same server.
            reason = short_reason(error)
            log.warning("W&B: no run online (%s); offline instead, `romexp task=sync` sends it later", reason)
    try:
        # Even for an offline run W&B reports its own use to the server, unless its settings say `offline` as a whole.
        wandb.setup(wandb.Settings(mode="offline", silent=True))
        return wandb.init(mode="offline", settings=wandb.Settings(**settings), **arguments)
    except (wandb.Error, ValueError, OSError) as error:
        raise ConfigError(f"tracker: W&B did not begin a run: {short_reason(error)}") from error


def _as_given(files: Path, root: Path) -> Path:
    """The path of a run's files, relative if `root` is."""
    inside = files.is_relative_to(root.absolute())
    return root / files.relative_to(root.absolute()) if inside else files
