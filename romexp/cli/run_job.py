"""What Hydra calls for each job, in this process or in a launcher's worker: run it, and say how it ended."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.measure import Measurement

from romexp.cli.error_messages import MISTAKES, one_line
from romexp.cli.job import Job, Outcome
from romexp.cli.job_record import INTERRUPTED, JobRecord
from romexp.cli.kept_between_jobs import KeptReferences, LoadedModels
from romexp.cli.workers import Process, exit_when_parent_dies
from romexp.errors import ConfigError

USER_MISTAKE, FAULT = 2, 1

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
"""The shipped sweeps, which the command finds by their name."""

ONE_MACHINE = (".JoblibLauncher", ".LocalLauncher")
"""Launchers whose workers share this machine's GPUs and outlive the command when it is killed."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a call ended: exit status, and the error if there was one, in one line and with its traceback."""

    status: int
    error: str = ""
    traceback: str = ""


def attempt(call: Callable[[], Any], *, debug: bool = False) -> Ending:
    """Call, and turn an exception into a message on stderr and an exit status."""
    debug = debug or os.environ.get("ROMEXP_TRACEBACK") == "1"
    try:
        call()
    except MISTAKES as error:
        if debug:
            traceback.print_exc()
        say(f"error: {one_line(error)}")
        return Ending(status=USER_MISTAKE, error=one_line(error))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on after the finished cases")
        return Ending(status=INTERRUPTED, error="interrupted")
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {one_line(error)}"
        return Ending(status=FAULT, error=reason, traceback=traceback.format_exc())
    return Ending(status=0)


def _command_line() -> tuple[str, ...]:
    """What to say after `romexp` for this job alone. A sweep file's own values come with its name and folder."""
    hydra = HydraConfig.get()
    name = hydra.job.config_name
    own = [each.path for each in hydra.runtime.config_sources if each.provider == "command-line"]
    folder = ("-cd", own[0]) if own and Path(own[0]) != SWEEPS else ()
    chosen = () if name in (None, "config") else ("-cn", str(name), "hydra.mode=RUN")
    return (*folder, *chosen, *hydra.overrides.task)


def say(message: str) -> None:
    """A line on stderr."""
    sys.stderr.write(f"romexp: {message}\n")


@dataclass(kw_only=True)
class JobFunction:
    """Made by the command and called for each job; launchers send copies to their workers.

    Attributes:
        command: the process that started it all.
        models: what is loaded; a worker's copy begins with nothing.
        references: reference texts, the same.
        status: exit status of the job that ran last in this process.
    """

    command: Process = field(default_factory=Process.this)
    models: LoadedModels = field(default_factory=LoadedModels)
    references: KeptReferences = field(default_factory=KeptReferences)
    status: int = 0

    def __call__(self, cfg: DictConfig) -> None:
        """Run one job. In a sweep nothing but an interruption gets out of here: the other jobs go on.

        Raises:
            SystemExit: interrupted from the keyboard.
        """
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            self._recorded(cfg)
        else:
            ending = attempt(lambda: show(self.run(cfg)), debug=bool(cfg.get("debug")))
            self.status = ending.status
        if self.status == INTERRUPTED:
            raise SystemExit(INTERRUPTED)

    def run(self, cfg: DictConfig) -> Outcome:
        """Build the task that the configuration describes and run it.

        Raises:
            RomexpError: a mistake in the configuration, or what the task raises.
        """
        # Imported here, so that `romexp --help` and a misspelt key answer at once.
        from hydra.utils import instantiate
        from transformers.utils import logging as transformers_logging

        from romexp.cli.validate_config import check
        from romexp.data.download import cache_folder

        if missing := sorted(key for key in OmegaConf.missing_keys(cfg) if not key.startswith("task.")):
            raise ConfigError(f"{', '.join(missing)} must be given: {' '.join(f'{key}=…' for key in missing)}")
        config = plain(cfg)
        check(config)
        transformers_logging.disable_progress_bar()  # of reading weights; downloads keep theirs
        task = instantiate(cfg.task)
        job = Job(
            config=config,
            choices={group: str(option) for group, option in HydraConfig.get().runtime.choices.items()},
            tracker=instantiate(cfg.tracker),
            outputs=Path(cfg.outputs).expanduser(),
            output_dir=Path(cfg.output_dir).expanduser() if cfg.output_dir else None,
            cache_dir=cache_folder(cfg.cache_dir),
            seed=int(cfg.seed),
            overrides=_command_line(),
            models=self.models,
            references=self.references,
        )
        outcome: Outcome = task(job)
        return outcome

    def _recorded(self, cfg: DictConfig) -> None:
        """Run one job of a sweep between two writes of its record."""
        hydra = HydraConfig.get()
        if self._beside_others:
            exit_when_parent_dies(self.command)
        folder, results = Path(hydra.sweep.dir), ""
        record = JobRecord.begun(number=int(hydra.job.num), overrides=tuple(hydra.overrides.task))
        record.write(folder)
        start = time.perf_counter()

        def call() -> None:
            nonlocal results
            with self._device(cfg):
                outcome = self.run(cfg)
            results = str(outcome.folder.resolve()) if outcome.folder else ""
            if outcome.folder is None:  # not in the sweep's table
                show(outcome)

        ending = attempt(call, debug=bool(cfg.get("debug")))
        if ending.status:
            self.models.forget()
        self.status, seconds = ending.status, time.perf_counter() - start
        ended = record.ended(
            exit_status=ending.status,
            error=ending.error,
            traceback=ending.traceback,
            results=results,
            seconds=seconds,
        )
        ended.write(folder)
        if not ending.status:
            say(f"job {record.number} done in {seconds:.1f} s{f': {results}' if results else ''}")

    @contextmanager
    def _device(self, cfg: DictConfig) -> Iterator[None]:
        """A GPU of its own for a worker's job, where neither configuration nor launcher chooses one."""
        model = cfg.model
        given = model.get("device") != "auto" or model.get("device_map") is not None
        if given or not self._beside_others:
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
                self.models.forget()  # the GPU goes to another process
                torch.cuda.empty_cache()

    @property
    def _beside_others(self) -> bool:
        """Whether this is a worker's process, and the other workers are on this machine."""
        launcher: str = HydraConfig.get().launcher._target_
        return Process.this() != self.command and launcher.endswith(ONE_MACHINE)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values; of the task only what is its own, since its parts stand beside it."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    config["task"] = {key: value for key, value in config["task"].items() if key not in config}
    return config


def show(outcome: Outcome) -> None:
    """Print what a task gave back, on stdout."""
    console = Console()
    for table in outcome.tables:  # whole, even where it is wider than the screen or than a pipe's 80 columns
        width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
        Console(width=max(width, console.width), highlight=False).print(table, crop=False)
    for line in outcome.lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
