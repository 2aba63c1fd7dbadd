"""The command `romexp`: compose the configuration, run its job or jobs, end with their status. No algorithm here."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from romexp.cli.console import print_outcome, print_stderr, run_and_report_errors
from romexp.cli.job import Outcome
from romexp.cli.run_job import SWEEPS, JobFunction

CONFIG = Path(__file__).resolve().parent / "conf"


def main() -> None:
    """Entry point: Hydra's command line over `conf/`, with errors as one line on stderr.

    Exit status: 0, 2 for a mistake in what was asked for, 1 for a fault of the program, 130 when interrupted. In a
    sweep every job runs, whatever became of the others, and the status is the largest of all; a job that was not run,
    or whose process was killed, counts as a fault.
    """
    # Threads that have nothing to do sleep instead of spinning; on a busy machine spinning costs three times the run.
    # Read when torch is loaded, so set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Hydra would print the error itself, over several lines; so it is told to let exceptions through.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    flags = {argument.partition("=")[0] for argument in sys.argv[1:]}
    # `romexp -cn layers_minifact` finds a shipped sweep from anywhere. Only then: sweeps/wandb would be a config group,
    # and `wandb=true` the choice of one of its files.
    if flags & {"-cn", "--config-name"} and not flags & {"-cd", "--config-dir"}:
        sys.argv += ["--config-dir", str(SWEEPS)]
    HydraConfig.instance().cfg = None  # of an earlier command of this process
    job = JobFunction()

    def task(cfg: DictConfig) -> None:
        job(cfg)

    app = hydra.main(version_base="1.3", config_path=str(CONFIG), config_name="config")(task)

    def command() -> None:
        try:
            app()
        except Exception as error:
            from romexp.cli.launchers import explain_launcher_error

            explain_launcher_error(error)

    try:
        status = run_and_report_errors(command).status
    except SystemExit as end:  # help, or an interrupted job
        status = int(end.code or 0)
    is_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    sys.exit(_finish_sweep(status) if is_sweep else max(status, job.status))


def _finish_sweep(status: int) -> int:
    """Print what became of a sweep; its exit status."""
    from romexp.cli.sweep import current_sweep
    from romexp.cli.sweep_table import closing_lines, failure_lines, sweep_tables

    sweep = current_sweep()
    jobs = sweep.jobs() if sweep else ()
    if sweep is None or not any(job.record for job in jobs):
        return status  # refused before any job began, with a message
    print_outcome(Outcome(tables=sweep_tables(jobs), lines=closing_lines(sweep, jobs)))
    for line in failure_lines(jobs):
        print_stderr(line)
    return max(status, *(job.exit_status for job in jobs))


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
