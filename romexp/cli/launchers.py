"""Explains errors of launchers and sweepers, which are plugins of Hydra (`hydra/launcher`, `hydra/sweeper`)."""

from __future__ import annotations

import os
import re
import sys
import traceback

from hydra.core.hydra_config import HydraConfig

from romexp.cli.console import print_stderr
from romexp.cli.error_messages import MISTAKES, one_line
from romexp.cli.sweep import current_sweep
from romexp.errors import ConfigError
from romexp.redact import without_secrets

GRACE_S = {"LocalLauncher": 30.0}
"""Seconds, by launcher, in which another job may still begin after a worker was lost (2 for other launchers).
`LocalLauncher` is submitit's local one, which starts all jobs at once."""


_EXTRAS = {"joblib": "launchers", "submitit": "launchers", "ray": "ray", "optuna": "optuna"}
"""The extra of this package that brings a plugin."""


def explain_launcher_error(error: Exception) -> None:
    """Print in one line why the launcher of a sweep failed, and wait for the jobs that are running.

    Jobs raise no errors (`JobFunction`), so an error during a sweep is the launcher's own: for example, a worker was
    killed, or this machine has no scheduler. Any other error is raised again.

    Raises:
        ConfigError: the launcher is not installed, or could not start any job.
    """
    if extra := _missing_extra(error):
        group = "sweeper" if extra == "optuna" else "launcher"
        raise ConfigError(f"hydra/{group}: a package is not installed: pip install 'romexp[{extra}]'") from error
    if isinstance(error, MISTAKES):
        raise error
    sweep = current_sweep()
    if sweep is None or (launcher := _launcher()) == "BasicLauncher":
        raise error
    reason = f"{type(error).__name__}: {one_line(error)}"
    if not any(job.record for job in sweep.jobs()):
        raise ConfigError(f"hydra/launcher: no job could be started: {reason}") from error
    if os.environ.get("ROMEXP_TRACEBACK") == "1":
        sys.stderr.write(without_secrets("".join(traceback.format_exception(error))))
    print_stderr(f"the launcher failed, jobs that are running continue: {reason[:300]}")
    sweep.wait_for_workers(grace_s=GRACE_S.get(launcher, 2.0))


def _launcher() -> str:
    return str(HydraConfig.get().launcher._target_).rpartition(".")[2]


def _missing_extra(error: Exception) -> str:
    """The extra of this package that installs the missing launcher or sweeper; empty for any other error."""
    if isinstance(error, ModuleNotFoundError):
        return _EXTRAS.get(error.name or "", "")
    names = "|".join(_EXTRAS)
    found = re.search(rf"Unknown plugin class : 'hydra_plugins\.hydra_({names})_(launcher|sweeper)\.", str(error))
    found = found or re.search(rf"Could not find 'hydra/(?:launcher|sweeper)/({names})(_|')", str(error))
    return "" if found is None else _EXTRAS[found[1]]
