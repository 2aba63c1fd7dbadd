"""Measures an editor with several values of one setting, each by an ordinary run of `task=edit` (`task=onboard`)."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from romexp.analysis.intervals import interval_of
from romexp.analysis.setting_choice import Scanned
from romexp.cli.job import Job, Outcome
from romexp.errors import ConfigError
from romexp.model_settings import bound_settings
from romexp.results.folder import RunFolder
from romexp.tasks.edit import EditExperiment

log = logging.getLogger(__name__)

GROUPS = ("model", "dataset", "covariance", "evaluator", "editor")
"""Groups whose option is part of the command of a run: `task=onboard` chooses some of them by itself."""


@dataclass(frozen=True, kw_only=True)
class ScannedRun:
    """A finished run of a scan.

    Attributes:
        scanned: what it measured.
        folder: its results.
        command: the arguments of `romexp` for the same run.
    """

    scanned: Scanned
    folder: Path
    command: str


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Runs of `task=edit` that differ in settings of the editor.

    Their folders are those that the same runs have as commands of their own, so that what is there is not made again.

    Attributes:
        experiment: the run that is repeated with other settings.
        job: the job of `task=onboard`.
        outputs: root of the results.
    """

    experiment: EditExperiment
    job: Job
    outputs: Path

    def over(
        self, setting: str, values: Sequence[float], *, fixed: Mapping[str, Any], known: Sequence[ScannedRun] = ()
    ) -> list[ScannedRun]:
        """One run for each value.

        Args:
            setting: the editor's field.
            values: its values.
            fixed: other fields that are set.
            known: runs that were made before, of the same fixed fields; those with one of the values are taken.

        Raises:
            ConfigError: the records have no S.
            RomexpError: see `EditExperiment`.
        """
        before = {run.scanned.value: run for run in known}
        return [
            before[value] if value in before else self._run(setting, value, fixed, f"{i} of {len(values)}")
            for i, value in enumerate(values, start=1)
        ]

    def plan(self, changes: Mapping[str, Any]) -> Outcome:
        """What `dry_run` says of the run with these settings.

        Raises:
            RomexpError: see `EditExperiment`.
        """
        return self._with(changes).plan(self._job(changes, self.arguments(changes)))

    def _with(self, changes: Mapping[str, Any]) -> EditExperiment:
        return replace(self.experiment, editor=replace(self.experiment.editor, **changes))  # type: ignore[type-var]

    def _run(self, setting: str, value: float, fixed: Mapping[str, Any], place: str) -> ScannedRun:
        changes = {**fixed, setting: value}
        log.info("%s %s (%s)", setting, value, place)
        arguments = self.arguments(changes)
        outcome = self._with(changes)(self._job(changes, arguments))
        assert outcome.folder is not None  # every run of task=edit has one
        folder = RunFolder(outcome.folder)
        summary = folder.read("summary") or {}
        if "S" not in summary.get("post", {}):
            raise ConfigError(
                "dataset: task=onboard compares settings by S, for which the records need the old answer, paraphrase "
                f"prompts and neighbourhood prompts; see {folder.path}"
            )
        scanned = Scanned(value=value, summary=summary, frame=pd.read_parquet(folder.parquet))
        low, high = interval_of(scanned.after["S"])
        reach = "" if low is None else f", 95 % interval {low:.1f} to {high:.1f}"
        log.info("%s %s: S %.1f%s", setting, value, scanned.score, reach)
        return ScannedRun(scanned=scanned, folder=folder.path, command=f"romexp {shlex.join(arguments)}")

    def arguments(self, changes: Mapping[str, Any]) -> list[str]:
        """The arguments of `romexp` for a run with these settings of the editor."""
        own = [f"{group}={self.job.choices[group]}" for group in GROUPS if group in self.job.choices]
        given = {text.lstrip("+").partition("=")[0] for text in own} | {f"editor.{name}" for name in changes}
        given |= {"dataset.limit", "evaluator.generation", "output_dir", "outputs"}
        kept = [text for text in self.job.overrides if not _said_otherwise(text, given)]
        limit = getattr(self.experiment.dataset, "limit", None)
        more = [f"dataset.limit={limit}"] if limit is not None else []
        if getattr(self.experiment.evaluator, "generation", None) == "off":
            more.append("evaluator.generation=off")
        option, editor = self.job.choices["editor"], self.experiment.editor
        # Named one by one, so that no run warns of them: what is written for the model says that they were not tried.
        usual = {name: getattr(editor, name, None) for name in bound_settings(option) if name not in changes}
        more += [
            f"editor.{name}={value}"
            for name, value in usual.items()
            if isinstance(value, int | float) and not _names(f"editor.{name}", kept)
        ]
        where = [] if str(self.outputs) == "outputs" else [f"outputs={self.outputs}"]
        return [*own, *kept, *more, *(f"editor.{name}={value}" for name, value in changes.items()), *where]

    def _job(self, changes: Mapping[str, Any], arguments: Sequence[str]) -> Job:
        """The job of the same run as a command of its own."""
        config = dict(self.job.config)
        config["editor"] = {**config["editor"], **changes}
        config["dataset"] = {**config["dataset"], "limit": getattr(self.experiment.dataset, "limit", None)}
        if "generation" in config["evaluator"]:
            config["evaluator"] = {**config["evaluator"], "generation": "off"}
        config["task"] = {
            "_target_": "romexp.tasks.edit.EditExperiment",
            "batch_size": self.experiment.batch_size,
        }
        config["outputs"], config["output_dir"] = str(self.outputs), None
        return replace(
            self.job,
            config=config,
            choices={**self.job.choices, "task": "edit"},
            outputs=self.outputs,
            output_dir=None,
            overrides=tuple(arguments),
        )


def _names(setting: str, arguments: Sequence[str]) -> bool:
    return any(argument.lstrip("+").partition("=")[0] == setting for argument in arguments)


def _said_otherwise(argument: str, names: set[str]) -> bool:
    """Whether an argument of `task=onboard` is not for the runs of a scan: it is about the task, or set anew."""
    name = argument.lstrip("+~").partition("=")[0]
    return name in names or name == "task" or name.startswith(("task.", "task/"))
