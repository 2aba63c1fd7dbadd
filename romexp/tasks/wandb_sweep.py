"""`task=wandb_sweep`: a study in `sweeps/` as a sweep of Weights & Biases, so that it is written only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from romexp.cli.job import Job, Outcome
from romexp.compose import SWEEPS, compose_sweep
from romexp.errors import ConfigError
from romexp.files import write_text

MACRO = "${args_no_hyphens}"
"""For this W&B's agent puts the values of one run."""

METRIC = {
    "romexp.tasks.edit.EditExperiment": "post/S",
    "romexp.tasks.lifelong.LifelongExperiment": "final/S",
    "romexp.tasks.trace.TraceExperiment": "ate",
}
"""What W&B's page of a sweep sorts by, by task: a name under which runs report."""


@dataclass(frozen=True, kw_only=True)
class WandbSweep:
    """Write the file for `wandb sweep` of a study. Its runs read the study's own file for all that they share.

    Attributes:
        study: name of a file in `folder`, as `romexp -cn` takes it.
        folder: folder of the study; None is that of the shipped ones.
        overrides: what every run gets besides, as on the command line.
    """

    study: str | None = None
    folder: Path | None = None
    overrides: Sequence[str] = ()

    def __call__(self, job: Job) -> Outcome:
        """Write the file.

        Raises:
            ConfigError: no study is given, there is no such study, or it is no grid.
        """
        if not self.study:
            known = ", ".join(sorted(file.stem for file in (self.folder or SWEEPS).glob("*.yaml")))
            raise ConfigError(f"study: which one? ({known})")
        file = (job.output_dir or job.outputs / "wandb_sweeps") / f"{self.study}.yaml"
        text = yaml.safe_dump(self.sweep(), sort_keys=False, allow_unicode=True, width=100)
        write_text(file, f"# Made from the study by romexp {' '.join(job.overrides)}\n{text}")
        return Outcome(lines=[f"W&B sweep: {file}", f"to begin it: wandb sweep {file}"])

    def sweep(self) -> dict[str, Any]:
        """The content of the file.

        Raises:
            ConfigError: see `__call__`.
        """
        name = str(self.study)
        cfg = compose_sweep(name, self.overrides, folder=self.folder or SWEEPS)
        params = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()]
        swept = [each for each in OverridesParser.create().parse_overrides(params) if each.is_sweep_override()]
        parameters = {each.key_or_group: {"values": list(_values(each, name))} for each in swept}
        if not parameters:
            raise ConfigError(f"{name}: hydra.sweeper.params names nothing to sweep over")
        where = ["-cd", str(self.folder.absolute())] if self.folder else []
        fixed = [text for text in params if text.partition("=")[0] not in parameters]
        return {
            "name": name,
            "project": "romexp",
            "program": "romexp",
            "command": ["romexp", *where, "-cn", name, "hydra.mode=RUN", *fixed, *self.overrides, MACRO],
            "method": "grid",
            **_metric(cfg),
            "parameters": parameters,
        }


def _metric(cfg: DictConfig) -> dict[str, Any]:
    metric = METRIC.get(cfg.task._target_)
    return {"metric": {"name": metric, "goal": "maximize"}} if metric else {}


def _values(override: Override, name: str) -> Iterator[Any]:
    """The values of a setting that is swept over. W&B writes null as `None`, so it is given as a word."""
    if not override.is_discrete_sweep():
        raise ConfigError(f"{name}: W&B cannot make a grid of {override.input_line}")
    for value, as_text in zip(override.sweep_iterator(), override.sweep_string_iterator(), strict=True):
        yield value if isinstance(value, (int, float)) else as_text
