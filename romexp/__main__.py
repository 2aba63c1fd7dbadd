"""The command `romexp`: it composes the configuration, runs its job or jobs, and exits with their status."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import romexp
from romexp.cli.command_line import MULTIRUN, ONLY_SHOW, flags_in, read_dotenv, ready_for_hydra
from romexp.cli.console import print_outcome, print_stderr, run_and_report_errors
from romexp.cli.job import Outcome
from romexp.cli.objective import Value
from romexp.cli.run_job import JobFunction
from romexp.errors import ConfigError
from romexp.redact import without_secrets

CONFIG = Path(__file__).resolve().parent / "conf"


def main() -> None:
    """Entry point: Hydra's command line over `conf/`; an error is printed as one line on stderr.

    Exit status: 0 for success, 1 for a fault of the program, 2 for a mistake of the user, 130 when interrupted. In a
    sweep a failed job does not stop the others, and the status is the largest of its jobs' statuses; a job that was not
    run, or whose process was killed, has status 1.
    """
    # Idle OpenMP threads sleep instead of spinning: on a busy machine spinning makes a run take three times as long.
    # torch reads the variable when it is imported, so it is set before that.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Without this Hydra prints an error itself, over several lines, instead of raising it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    given = sys.argv[1:]
    flags = flags_in(given)
    if "--version" in flags:  # Hydra would print its own version
        sys.stdout.write(f"{_version()}\n")
        sys.exit(0)
    if status := run_and_report_errors(_prepare).status:
        sys.exit(status)
    HydraConfig.instance().cfg = None  # it may be that of an earlier command in this process
    with suppress(AttributeError):  # A stream that stands for the terminal, as in a notebook, may lack the method.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # A log that another library cannot write, as W&B's own on a full disk, is no reason for tracebacks on the terminal.
    logging.raiseExceptions = False
    job = JobFunction(typed=tuple(given))

    def task(cfg: DictConfig) -> Value:
        return job(cfg)

    app = hydra.main(version_base="1.3", config_path=str(CONFIG), config_name="config")(task)

    def command() -> None:
        try:
            if flags & MULTIRUN and flags & {"--cfg", "-c"}:
                _show_jobs(app)
            else:
                app()
        except Exception as error:
            from romexp.cli.launchers import explain_launcher_error

            _explain_group_without_option(error)
            _explain_flags(error)
            explain_launcher_error(error)

    try:
        status = run_and_report_errors(command).status
    except SystemExit as end:  # help, or an interrupted job
        status = int(end.code or 0)
    is_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN and not flags & ONLY_SHOW
    sys.exit(_finish_sweep(status) if is_sweep else max(status, job.status))


def _prepare() -> None:
    """Read `.env`, and make the command line ready for Hydra."""
    read_dotenv(Path.cwd())
    sys.argv[1:] = ready_for_hydra(sys.argv[1:])


def _show_jobs(app: Callable[[], Any]) -> None:
    """Print the configuration of each job of a sweep, as documents of one YAML stream."""
    from romexp.cli.show_sweep import jobs_to_show

    given = sys.argv
    try:
        for comment, arguments in jobs_to_show(given[1:]):
            sys.stdout.write(f"---\n{without_secrets(comment)}\n")
            sys.argv = [given[0], *arguments]
            app()
    finally:
        sys.argv = given


def _version() -> str:
    """The version of romexp, and the commit if it runs from a checkout."""
    from romexp.results.environment import commit

    return f"romexp {romexp.__version__}{f' (commit {found})' if (found := commit()) else ''}"


def _explain_group_without_option(error: Exception) -> None:
    """Say which group of the command line has no name of an option, as in `editor=null`. Hydra does not name it.

    Raises:
        ConfigError: that is what the error means.
    """
    if not str(error).startswith("Config group override must be"):
        return
    from romexp.compose import CONF, options

    for argument in sys.argv[1:]:
        group, _, option = argument.lstrip("+").partition("=")
        if re.fullmatch(r"[\w/]+", group) and (CONF / group).is_dir() and option not in options(group):
            known = ", ".join(options(group))
            raise ConfigError(f"{group}: expected the name of an option ({known}), not {option}") from error


def _explain_flags(error: Exception) -> None:
    """Say which flags of Hydra exclude each other.

    Raises:
        ConfigError: that is what the error means.
    """
    if str(error).startswith("Only one of --run, --multirun, --cfg"):
        raise ConfigError(
            "-m and --info cannot be given together: --info shows one job, so leave out -m and give one value for each "
            "setting (with --cfg, -m shows every job)"
        ) from error
    if str(error).startswith("The --resolve flag"):
        raise ConfigError("--resolve needs --cfg: romexp --cfg job --resolve") from error


def _finish_sweep(status: int) -> int:
    """Print the results and failures of a sweep; return its exit status."""
    from romexp.cli.sweep import LOST, current_sweep
    from romexp.cli.sweep_table import closing_lines, failure_lines, sweep_tables

    sweep = current_sweep()
    jobs = sweep.jobs() if sweep else ()
    if sweep is None or not any(job.record for job in jobs):
        if jobs and not status:
            print_stderr(f"error: no job has left a record in {sweep.folder if sweep else ''}")
            return LOST
        return status  # no job began, and the reason has been printed
    print_outcome(Outcome(tables=sweep_tables(jobs), lines=closing_lines(sweep, jobs)))
    for line in failure_lines(jobs):
        print_stderr(line)
    return max(status, *(job.exit_status for job in jobs))


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
