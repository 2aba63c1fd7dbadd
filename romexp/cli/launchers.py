"""Launchers (config group `hydra/launcher`) are plugins of Hydra: what it means when one is missing or gives up."""

from __future__ import annotations

import os
import re
import traceback

from hydra.core.hydra_config import HydraConfig

from romexp.cli.console import print_stderr
from romexp.cli.error_messages import MISTAKES, one_line
from romexp.cli.sweep import current_sweep
from romexp.errors import ConfigError

GRACE_S = {"LocalLauncher": 30.0}
"""By launcher: how long after a lost worker another may still begin. submitit_local starts all jobs at once."""


def explain_launcher_error(error: Exception) -> None:
    """Say in one line what went wrong with a sweep's launcher, and wait for the jobs that are at work.

    Jobs raise nothing (`JobFunction`), so what comes out of a launcher is its own: a worker was killed, say, or there
    is no scheduler here. Every other error is raised again.

    Raises:
        ConfigError: the launcher is not installed, or could not start a single job.
    """
    if extra := _missing(error):
        raise ConfigError(f"hydra/launcher: a package is not installed: pip install 'romexp[{extra}]'") from error
    if isinstance(error, MISTAKES):
        raise error
    sweep = current_sweep()
    if sweep is None or (launcher := _launcher()) == "BasicLauncher":
        raise error
    reason = f"{type(error).__name__}: {one_line(error)}"
    if not any(job.record for job in sweep.jobs()):
        raise ConfigError(f"hydra/launcher: no job could be started: {reason}") from error
    if os.environ.get("ROMEXP_TRACEBACK") == "1":
        traceback.print_exception(error)
    print_stderr(f"the launcher gave up, jobs at work go on: {reason[:300]}")
    sweep.wait_for_workers(grace_s=GRACE_S.get(launcher, 2.0))


def _launcher() -> str:
    return str(HydraConfig.get().launcher._target_).rpartition(".")[2]


def _missing(error: Exception) -> str:
    """The extra of this package that would install a launcher; empty if the error is another."""
    if isinstance(error, ModuleNotFoundError) and error.name in ("joblib", "submitit", "ray"):
        return "ray" if error.name == "ray" else "launchers"
    found = re.search(r"Unknown plugin class : 'hydra_plugins\.hydra_([a-z]+)_launcher\.", str(error))
    found = found or re.search(r"Could not find 'hydra/launcher/(joblib|submitit|ray)(_|')", str(error))
    return "" if found is None else "ray" if found[1] == "ray" else "launchers"
