"""`romexp -m … --cfg job`: the configuration of every job of a sweep, which Hydra refuses to show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from romexp.cli.command_line import MULTIRUN
from romexp.cli.sweep import differing, planned_overrides
from romexp.compose import CONF, compose_sweep
from romexp.errors import ConfigError


def jobs_to_show(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """For each job of the sweep a comment that names it, and the arguments that show its configuration alone.

    Args:
        arguments: those of the command with `-m` and `--cfg`, after `romexp`.

    Raises:
        ConfigError: the sweeper chooses the jobs while the sweep runs, or there is no such option or setting.
        HydraException: the command line cannot be read.
    """
    given = get_args_parser().parse_args(list(arguments))
    flags = [word for word in arguments if word not in given.overrides and word not in MULTIRUN]
    jobs = _jobs(given.config_name, given.config_dir, given.overrides)
    for number, (label, job) in enumerate(zip(differing(jobs), jobs, strict=True), start=1):
        yield f"# job {number} of {len(jobs)}" + (f" ({label})" if label else ""), [*flags, *job]


def _jobs(name: str | None, folder: str | None, overrides: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Overrides of each job, as Hydra's own sweeper derives them."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    fixed = [text for text, each in zip(overrides, parsed, strict=True) if not each.is_sweep_override()]
    hydra = compose_sweep(name or "config", fixed, folder=Path(folder) if folder else CONF).hydra
    ours = [text for text, each in zip(overrides, parsed, strict=True) if not each.key_or_group.startswith("hydra")]
    jobs = planned_overrides(hydra, given=ours)
    if jobs is None:
        raise ConfigError("this sweeper chooses its jobs while it runs: leave out -m to see what they have in common")
    return jobs
