"""What a task gets from the command line beyond its own fields, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import RenderableType

from romexp.bounds import check_bounds
from romexp.cli.kept_between_jobs import KeptReferences, LoadedModels
from romexp.cli.run_log import RunLog
from romexp.cli.sweep_progress import SweepProgress
from romexp.tracking import Tracker

if TYPE_CHECKING:  # importing torch takes seconds, and the command line imports this file
    from romexp.lm.model import LanguageModel, PretrainedModel


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one task: the settings that every task shares (top level of `conf/config.yaml`).

    Attributes:
        config: the whole resolved configuration; it is stored beside the results and sent to the tracker.
        choices: the chosen option of each config group, for folder names.
        tracker: receives metrics, tables and images.
        outputs: root of all result folders.
        output_dir: the result folder; None takes a folder below `outputs`, named by the run's parts and identity.
        cache_dir: folder of what runs share: downloads, second moments, context templates, metrics of unedited models.
        seed: the run's seed; everything random derives from it (`romexp.seeds`).
        overrides: arguments of `romexp` that repeat this run.
        typed: arguments of the command as they were typed, perhaps of a whole sweep; empty if there was no command.
        models: keeps the loaded model for later jobs of this process.
        references: keeps the reference texts for later jobs of this process.
        log: collects what is logged, and writes it into the folder of the run.
        sweep: how far the sweep is that this is a job of; None for a single run. A job of a sweep waits for another
            process that does the same run, instead of failing.
        config_folders: the user's own folders of configurations (`--config-dir`, `hydra.searchpath`).
    """

    config: Mapping[str, Any]
    choices: Mapping[str, str]
    tracker: Tracker
    outputs: Path
    output_dir: Path | None
    cache_dir: Path
    seed: int
    overrides: Sequence[str] = ()
    typed: Sequence[str] = ()
    models: LoadedModels = field(default_factory=LoadedModels)
    references: KeptReferences = field(default_factory=KeptReferences)
    log: RunLog = field(default_factory=RunLog)
    sweep: SweepProgress | None = None
    config_folders: Sequence[Path] = ()

    def __post_init__(self) -> None:
        check_bounds(self, "", from_0=("seed",))

    def load(self, model: PretrainedModel) -> LanguageModel:
        """Load a model, or return it if the job before has loaded it. Its weights must not be changed.

        Raises:
            ConfigError: see `PretrainedModel.load`.
        """
        return self.models.load(model, digests=self.cache_dir / "digests")

    @property
    def folders(self) -> dict[str, Path | None]:
        """The folders that settings choose, by the names of these settings. The innermost come first."""
        return {"output_dir": self.output_dir, "cache_dir or ROMEXP_CACHE": self.cache_dir, "outputs": self.outputs}

    def roots(self, results: Sequence[str] | None) -> list[Path]:
        """The folders in which a task looks for results: those in `results`, or `outputs` if there are none."""
        return [Path(root).expanduser() for root in results] if results else [self.outputs]


class Conversation(Protocol):
    """What a task goes on with when its outcome is printed."""

    @property
    def greeting(self) -> str:
        """A line that says what can be typed."""
        ...

    def answer(self, line: str) -> Iterable[RenderableType]:
        """Answer one line; each part is printed as soon as it comes.

        Raises:
            RomexpError: the line cannot be answered. It is printed, and the conversation goes on.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """What is left of a run (`dry_run`).

    Attributes:
        cases: number of cases without a result.
        seconds: at most about how long they will take; None if it is not known.
    """

    cases: int
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the command line prints when a task is done.

    Attributes:
        tables: rich renderables.
        lines: text below the tables, such as paths of results and the number of records set aside.
        folder: the result folder, whose `summary.json` the table of a sweep reads; None if the task has none.
        inputs: files that the results depend on, besides those that the configuration names; None if they are not
            known, and then the run is opened in full when it is repeated (`romexp.cli.finished_runs`).
        conversation: with what the command goes on if somebody sits at a terminal.
        remaining: what is left of a run that was only planned.
    """

    tables: Sequence[RenderableType] = ()
    lines: Sequence[str] = field(default_factory=tuple)
    folder: Path | None = None
    inputs: Sequence[Path] | None = None
    conversation: Conversation | None = None
    remaining: Remaining | None = None


class Task(Protocol):
    """A task of `romexp` (config group `task`): a frozen dataclass of parts and settings."""

    def __call__(self, job: Job) -> Outcome: ...
