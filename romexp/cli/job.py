"""What a task gets from the command line beyond its own fields, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import RenderableType

from romexp.cli.kept_between_jobs import KeptReferences, LoadedModels
from romexp.tracking import Tracker

if TYPE_CHECKING:  # torch takes seconds, and the command line imports this file
    from romexp.lm.model import LanguageModel, PretrainedModel


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one task: the settings that every task shares (top level of `conf/config.yaml`).

    Attributes:
        config: the whole configuration, resolved: kept beside the results and sent to the tracker.
        choices: the chosen option of each config group, for folder names.
        tracker: where to report.
        outputs: root of all result folders.
        output_dir: the result folder itself; None names one below `outputs` by what is run.
        cache_dir: for what many runs share: downloads, second moments, context templates, unedited metrics.
        seed: the run's seed; everything random derives from it (`romexp.seeds`).
        overrides: what the command line said, so that the same run can be asked for again.
        models: what earlier jobs of this process have loaded.
        references: the same for reference texts.
    """

    config: Mapping[str, Any]
    choices: Mapping[str, str]
    tracker: Tracker
    outputs: Path
    output_dir: Path | None
    cache_dir: Path
    seed: int
    overrides: Sequence[str] = ()
    models: LoadedModels = field(default_factory=LoadedModels)
    references: KeptReferences = field(default_factory=KeptReferences)

    def load(self, model: PretrainedModel) -> LanguageModel:
        """A model, loaded now or by the job before. Leave its weights as they are.

        Raises:
            ConfigError: as `PretrainedModel.load`.
        """
        return self.models.load(model)

    def roots(self, results: Sequence[str] | None) -> list[Path]:
        """Where a task that reads results looks for them: the folders that it names, else `outputs`."""
        return [Path(root).expanduser() for root in results] if results else [self.outputs]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the command line prints when a task is done.

    Attributes:
        tables: rich renderables.
        lines: text below them: where things lie, what was set aside.
        folder: the result folder, whose `summary.json` a sweep's table reads; None if there is none.
    """

    tables: Sequence[RenderableType] = ()
    lines: Sequence[str] = field(default_factory=tuple)
    folder: Path | None = None


class Task(Protocol):
    """Something that `romexp` does (config group `task`): a frozen dataclass of parts and settings."""

    def __call__(self, job: Job) -> Outcome: ...
