"""What Hydra calls for each job, in this process or in a launcher's worker: run it, and say how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from romexp.cli.console import print_outcome, print_stderr, run_and_report_errors
from romexp.cli.job import Job, Outcome
from romexp.cli.job_record import INTERRUPTED, JobRecord
from romexp.cli.kept_between_jobs import KeptReferences, LoadedModels
from romexp.cli.workers import Process, exit_when_parent_dies
from romexp.errors import ConfigError

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
"""The shipped sweeps, which the command finds by their name."""

ONE_MACHINE = (".JoblibLauncher", ".LocalLauncher")
"""Launchers whose workers share this machine's GPUs and outlive the command when it is killed."""


def _overrides_for_this_job() -> tuple[str, ...]:
    """What to say after `romexp` for this job alone. A sweep file's own values come with its name and folder."""
    hydra = HydraConfig.get()
    name = hydra.job.config_name
    own = [each.path for each in hydra.runtime.config_sources if each.provider == "command-line"]
    folder = ("-cd", own[0]) if own and Path(own[0]) != SWEEPS else ()
    chosen = () if name in (None, "config") else ("-cn", str(name), "hydra.mode=RUN")
    return (*folder, *chosen, *hydra.overrides.task)


@dataclass(kw_only=True)
class JobFunction:
    """Made by the command and called for each job; launchers send copies to their workers.

    Attributes:
        command: the process that started it all; None in that process itself.
        models: what is loaded; a worker's copy begins with nothing.
        references: reference texts, the same.
        status: exit status of the job that ran last in this process.
    """

    command: Process | None = None
    models: LoadedModels = field(default_factory=LoadedModels)
    references: KeptReferences = field(default_factory=KeptReferences)
    status: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """What travels to a launcher's workers: they are told which process started them."""
        return self.__dict__ | {"command": self.command or Process.this()}

    def __call__(self, cfg: DictConfig) -> None:
        """Run one job. In a sweep nothing but an interruption gets out of here: the other jobs go on.

        Raises:
            SystemExit: interrupted from the keyboard.
        """
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            self._run_in_sweep(cfg)
        else:
            result = run_and_report_errors(lambda: print_outcome(self.run(cfg)), debug=bool(cfg.get("debug")))
            self.status = result.status
        if self.status == INTERRUPTED:
            raise SystemExit(INTERRUPTED)

    def run(self, cfg: DictConfig) -> Outcome:
        """Build the task that the configuration describes and run it.

        Raises:
            RomexpError: a mistake in the configuration, or what the task raises.
        """
        # Imported here, so that `romexp --help` and a misspelt key answer at once.
        from hydra.utils import instantiate

        from romexp.cli.validate_config import validate_config
        from romexp.data.download import cache_folder

        if missing := sorted(key for key in OmegaConf.missing_keys(cfg) if not key.startswith("task.")):
            raise ConfigError(f"{', '.join(missing)} must be given: {' '.join(f'{key}=…' for key in missing)}")
        config = plain(cfg)
        validate_config(config)
        task = instantiate(cfg.task)
        job = Job(
            config=config,
            choices={group: str(option) for group, option in HydraConfig.get().runtime.choices.items()},
            tracker=instantiate(cfg.tracker),
            outputs=Path(cfg.outputs).expanduser(),
            output_dir=Path(cfg.output_dir).expanduser() if cfg.output_dir else None,
            cache_dir=cache_folder(cfg.cache_dir),
            seed=int(cfg.seed),
            overrides=_overrides_for_this_job(),
            models=self.models,
            references=self.references,
        )
        outcome: Outcome = task(job)
        return outcome

    def _run_in_sweep(self, cfg: DictConfig) -> None:
        """Run one job of a sweep between two writes of its record."""
        hydra = HydraConfig.get()
        if self.command is not None and self._shares_machine:
            exit_when_parent_dies(self.command)
        folder, results = Path(hydra.sweep.dir), ""
        record = JobRecord.begun(number=int(hydra.job.num), overrides=tuple(hydra.overrides.task))
        record.write(folder)
        start = time.perf_counter()

        def call() -> None:
            nonlocal results
            with self._own_gpu(cfg):
                outcome = self.run(cfg)
            results = str(outcome.folder.resolve()) if outcome.folder else ""
            if outcome.folder is None:  # not in the sweep's table
                print_outcome(outcome)

        result = run_and_report_errors(call, debug=bool(cfg.get("debug")))
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
        ended.write(folder)
        if not result.status:
            print_stderr(f"job {record.number} done in {seconds:.1f} s{f': {results}' if results else ''}")

    @contextmanager
    def _own_gpu(self, cfg: DictConfig) -> Iterator[None]:
        """A GPU of its own for a worker's job, where neither configuration nor launcher chooses one."""
        model = cfg.model
        given = model.get("device") != "auto" or model.get("device_map") is not None
        if given or not self._shares_machine:
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
    def _shares_machine(self) -> bool:
        """Whether this is a worker's process, and the other workers are on this machine."""
        launcher: str = HydraConfig.get().launcher._target_
        return self.command is not None and Process.this() != self.command and launcher.endswith(ONE_MACHINE)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values; of the task only what is its own, since its parts stand beside it."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    config["task"] = {key: value for key, value in config["task"].items() if key not in config}
    return config
