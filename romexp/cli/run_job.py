"""The function that Hydra calls for each job, in this process or in a launcher's worker."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from romexp.cli.console import announced, print_outcome, run_and_report_errors
from romexp.cli.conversation import converse, on_terminal
from romexp.cli.dry_run import plan_of
from romexp.cli.extras import config_tree
from romexp.cli.field_values import is_on
from romexp.cli.job import Job, Outcome, Remaining
from romexp.cli.job_record import INTERRUPTED, JobRecord
from romexp.cli.kept_between_jobs import KeptReferences, LoadedModels
from romexp.cli.objective import Value, job_objective
from romexp.cli.run_log import RunLog
from romexp.cli.sweep_progress import SweepProgress
from romexp.cli.torch_settings import cpu_threads, precision_of
from romexp.cli.workers import Process, exit_when_parent_dies
from romexp.compose import CONF, SWEEPS
from romexp.errors import ConfigError, FileError
from romexp.files import cache_folder
from romexp.os_errors import describe
from romexp.redact import without_secrets, without_secrets_in

log = logging.getLogger(__name__)

ONE_MACHINE = (".JoblibLauncher", ".LocalLauncher")
"""Launchers whose workers share this machine's GPUs, and keep running if the command is killed."""

ANNOUNCE_AFTER_S = 1.0
"""A single run that takes longer says what it does: the libraries and a large model take their time to load."""


def _summary(cfg: DictConfig) -> str:
    """The main parts of a run, as in `task=edit model=minifact dataset=minifact editor=rome`."""
    choices = HydraConfig.get().runtime.choices
    parts = [part for part in ("model", "dataset", "editor") if part in cfg.task and part in choices]
    return " ".join(f"{part}={choices[part]}" for part in ("task", *parts)) + ": begins"


def _overrides_for_this_job() -> tuple[str, ...]:
    """Arguments of `romexp` that repeat this job alone, without passwords of URLs.

    A sweep's own values are given by the name of its file.
    """
    hydra = HydraConfig.get()
    name = hydra.job.config_name
    own = [each.path for each in hydra.runtime.config_sources if each.provider == "command-line"]
    folder = ("-cd", own[0]) if own and Path(own[0]) != SWEEPS else ()
    chosen: tuple[str, ...] = () if name in (None, "config") else ("-cn", str(name), "hydra.mode=RUN")
    if not chosen and hydra.runtime.choices.get("hparams_search"):  # its file makes a sweep of the command
        chosen = ("hydra.mode=RUN",)
    return (*folder, *chosen, *map(without_secrets, hydra.overrides.task))


def _own_config_folders() -> tuple[Path, ...]:
    """The user's folders of configurations; the shipped ones are left out."""
    sources = HydraConfig.get().runtime.config_sources
    folders = [Path(source.path) for source in sources if source.schema == "file"]
    return tuple(folder for folder in folders if folder not in (CONF, SWEEPS))


@dataclass(kw_only=True)
class JobFunction:
    """Runs one job at each call. The command creates it; launchers send copies to their workers.

    Attributes:
        typed: the command's arguments.
        command: the process of the command; None in that process itself.
        models: keeps the loaded model between jobs; a worker's copy begins empty.
        references: keeps the reference texts between jobs; a worker's copy begins empty.
        status: exit status of the job that ran last in this process.
        sweep: how far the sweep is; None for a single run.
    """

    typed: Sequence[str] = ()
    command: Process | None = None
    models: LoadedModels = field(default_factory=LoadedModels)
    references: KeptReferences = field(default_factory=KeptReferences)
    status: int = 0
    sweep: SweepProgress | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The state that is sent to a launcher's workers; it names the process that started them."""
        return self.__dict__ | {"command": self.command or Process.this()}

    def __call__(self, cfg: DictConfig) -> Value:
        """Run one job. In a sweep no error of a job is raised, so that the other jobs run.

        Returns:
            its objective, for Hydra's sweeper.

        Raises:
            SystemExit: the job was interrupted from the keyboard.
        """
        hydra = HydraConfig.get()
        if hydra.job.chdir:  # Hydra has changed the folder; relative paths mean the folder of the command
            os.chdir(hydra.runtime.cwd)
        value: Value = None
        if hydra.mode == RunMode.MULTIRUN:
            value = self._run_in_sweep(cfg)
        else:

            def call() -> None:
                nonlocal value
                outcome = self.run(cfg)
                _show(outcome)
                value = job_objective(cfg, outcome.folder)

            with announced(_summary(cfg), after_s=ANNOUNCE_AFTER_S):
                self.status = run_and_report_errors(call, debug=is_on(cfg.get("traceback"))).status
        if self.status == INTERRUPTED:
            raise SystemExit(INTERRUPTED)
        return value

    def run(self, cfg: DictConfig) -> Outcome:
        """Build the task that the configuration describes and run it.

        Raises:
            RomexpError: the configuration has a mistake, or the task raised an error.
        """
        from romexp.cli.finished_runs import FinishedRuns
        from romexp.cli.unread_settings import refuse_unread

        hydra = HydraConfig.get()
        choices = {group: str(option) for group, option in hydra.runtime.choices.items()}
        refuse_unread(cfg, task=choices.get("task", "…"), overrides=hydra.overrides.task, groups=choices)
        if missing := sorted(key for key in OmegaConf.missing_keys(cfg) if not key.startswith("task.")):
            raise ConfigError(f"{', '.join(missing)} must be given: {' '.join(f'{key}=…' for key in missing)}")
        values = plain(cfg)
        if is_on((values.get("extras") or {}).get("print_config")):
            print_outcome(Outcome(tables=(config_tree(_recorded(values)),)))
        if is_on(values.get("dry_run")):
            return self._run_task(values, choices)
        given = values.get("cache_dir")
        cache = cache_folder(given if isinstance(given, str) else None)
        finished = FinishedRuns(folder=cache / "finished", config=values)
        if outcome := finished.find():
            return outcome
        outcome = self._run_task(values, choices)
        finished.keep(outcome)
        return outcome

    def _run_task(self, values: dict[str, Any], choices: dict[str, str]) -> Outcome:
        """Run the task, or with `dry_run` only say what would run."""
        # Checking the values imports their classes, and so torch, which takes seconds.
        from romexp.cli.validate_config import build, validate_config

        config = validate_config(values)
        task = build(config["task"], where="task")
        with RunLog.collecting() as run_log, cpu_threads(config["threads"]), precision_of(task):
            job = Job(
                config=_recorded(config),
                choices=choices,
                tracker=build(config["tracker"], where="tracker"),
                outputs=Path(config["outputs"]).expanduser(),
                output_dir=Path(config["output_dir"]).expanduser() if config["output_dir"] else None,
                cache_dir=cache_folder(config["cache_dir"]),
                seed=config["seed"],
                overrides=_overrides_for_this_job(),
                typed=self.typed,
                models=self.models,
                references=self.references,
                log=run_log,
                sweep=self.sweep,
                config_folders=_own_config_folders(),
            )
            try:
                outcome: Outcome = plan_of(task, job) if config["dry_run"] else task(job)
            except OSError as error:
                raise FileError(describe(error, job.folders)) from error
        return outcome

    def _run_in_sweep(self, cfg: DictConfig) -> Value:
        """Run one job of a sweep; write its record before and after. Return its objective, None if it failed."""
        hydra = HydraConfig.get()
        if self.command is not None and self._shares_machine:
            exit_when_parent_dies(self.command)
        folder, results, shown = Path(hydra.sweep.dir), "", ""
        value: Value = None
        remaining: Remaining | None = None
        record = JobRecord.begun(number=int(hydra.job.num), overrides=tuple(hydra.overrides.task))
        record.write(folder)
        self.sweep = SweepProgress.read(folder)
        own = [override for override in record.overrides if override not in self.sweep.shared]
        name = self.sweep.name(record.number, fallback=" ".join(own))
        log.info("%s", name)
        start = time.perf_counter()

        def call() -> None:
            nonlocal results, shown, value, remaining
            with self._own_gpu(cfg):
                outcome = self.run(cfg)
            if outcome.folder is not None:
                results, shown = str(outcome.folder.resolve()), str(outcome.folder)
            if outcome.folder is None:  # the table of the sweep does not show it
                print_outcome(outcome)
            value, remaining = job_objective(cfg, outcome.folder), outcome.remaining

        result = run_and_report_errors(call, debug=is_on(cfg.get("traceback")))
        if result.status:
            self.models.forget()
        self.status, seconds = result.status, time.perf_counter() - start
        ended = record.ended(
            exit_status=result.status,
            error=result.error,
            traceback=result.traceback,
            results=results,
            seconds=seconds,
        )
        if remaining is not None:
            ended = replace(ended, cases_left=remaining.cases, seconds_left=remaining.seconds)
        ended.write(folder)
        ended_as = "interrupted" if result.status == INTERRUPTED else "failed" if result.status else "done"
        left, number = self.sweep.left(self.sweep.done()), name.partition(" (")[0]
        log.info("%s %s in %.1f s%s%s", number, ended_as, seconds, left, f": {shown}" if shown else "")
        return value

    @contextmanager
    def _own_gpu(self, cfg: DictConfig) -> Iterator[None]:
        """Give a worker's job a GPU of its own, unless the configuration or the launcher chooses the device."""
        model = cfg.model
        free = isinstance(model, DictConfig) and model.get("device") == "auto" and model.get("device_map") is None
        if not free or not self._shares_machine:
            yield
            return
        import torch

        from romexp.cli.workers import lock_folder, own_gpu, visible_gpus

        if not (count := torch.cuda.device_count()):
            yield
            return
        with own_gpu(visible_gpus(count), folder=lock_folder()) as device:
            model.device = device
            try:
                yield
            finally:
                self.models.forget()  # another process may get the GPU next
                torch.cuda.empty_cache()

    @property
    def _shares_machine(self) -> bool:
        """Whether this is a worker's process and all workers run on this machine."""
        launcher: str = HydraConfig.get().launcher._target_
        return self.command is not None and Process.this() != self.command and launcher.endswith(ONE_MACHINE)


def _show(outcome: Outcome) -> None:
    """Print an outcome, and go on with its conversation if somebody sits at a terminal."""
    print_outcome(outcome)
    if outcome.conversation is not None and on_terminal():
        converse(outcome.conversation)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values. `task` holds its parts too, which also stand at the top level."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    return config


def _recorded(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration that is stored beside results, without passwords of URLs; `task` keeps only values that do not
    stand at the top level."""
    own = {key: value for key, value in config["task"].items() if key not in config or value != config[key]}
    recorded: dict[str, Any] = without_secrets_in(config | {"task": own})
    return recorded
