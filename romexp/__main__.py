"""The command `romexp`: compose the configuration, build the task, run it, print what came out. No algorithm here."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.measure import Measurement

from romexp.errors import ConfigError
from romexp.experiments.job import Outcome
from romexp.experiments.mistakes import MISTAKES, one_line

PACKAGE = Path(__file__).resolve().parent
CONFIG, SWEEPS = PACKAGE / "conf", PACKAGE / "sweeps"
USER_MISTAKE, FAULT, INTERRUPTED = 2, 1, 130


def main() -> None:
    """Entry point: Hydra's command line over `conf/`, with errors as one line on stderr.

    Exit status: 0, 2 for a mistake in what was asked for, 1 for a fault of the program, 130 when interrupted. In a
    sweep every job runs, whatever became of the others, and the status is the worst of all.
    """
    statuses: list[int] = []
    # Threads that have nothing to do sleep instead of spinning; on a busy machine spinning costs three times the run.
    # Read when torch is loaded, so set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Hydra would print the error itself, over several lines; so it is told to let exceptions through.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if not {"-cd", "--config-dir"} & {argument.partition("=")[0] for argument in sys.argv[1:]}:
        sys.argv += ["--config-dir", str(SWEEPS)]  # `romexp -cn layers_minifact` finds a shipped sweep from anywhere
    app = hydra.main(version_base="1.3", config_path=str(CONFIG), config_name="config")(_job(statuses))
    statuses.append(_guarded(app))
    if len(statuses) > 2 and (failed := sum(status != 0 for status in statuses)):
        _say(f"{failed} of {len(statuses) - 1} jobs failed")
    sys.exit(max(statuses, key=abs))


def _job(statuses: list[int]) -> Callable[[DictConfig], None]:
    """The function that Hydra calls for each job; it remembers how the jobs ended."""
    process = os.getpid()

    def job(cfg: DictConfig) -> None:
        if os.getpid() != process:  # a launcher's worker: Hydra carries the exception to the parent
            return run(cfg)
        statuses.append(_guarded(lambda: run(cfg), debug=bool(cfg.get("debug"))))

    return job


def _guarded(call: Callable[[], Any], *, debug: bool = False) -> int:
    """Call, and turn an exception into a message and an exit status."""
    debug = debug or os.environ.get("ROMEXP_TRACEBACK") == "1"
    try:
        call()
    except MISTAKES as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {one_line(error)}")
        return USER_MISTAKE
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on after the finished cases")
        raise SystemExit(INTERRUPTED) from None
    except Exception:
        traceback.print_exc()
        return FAULT
    return 0


def run(cfg: DictConfig) -> None:
    """Build the task that the configuration describes, run it and print its outcome."""
    # Imported here, so that `romexp --help` and a misspelt key answer at once.
    from hydra.utils import instantiate
    from transformers.utils import logging as transformers_logging

    from romexp.data.download import cache_folder
    from romexp.experiments.checked import check
    from romexp.experiments.job import Job

    if missing := sorted(key for key in OmegaConf.missing_keys(cfg) if not key.startswith("task.")):
        raise ConfigError(f"{', '.join(missing)} must be given: {' '.join(f'{key}=…' for key in missing)}")
    config = _plain(cfg)
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
        overrides=tuple(HydraConfig.get().overrides.task),
    )
    _show(task(job))


def _show(outcome: Outcome) -> None:
    console = Console()
    for table in outcome.tables:  # whole, even where it is wider than the screen or than a pipe's 80 columns
        width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
        Console(width=max(width, console.width), highlight=False).print(table, crop=False)
    for line in outcome.lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values; of the task only what is its own, since its parts stand beside it."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    config["task"] = {key: value for key, value in config["task"].items() if key not in config}
    return config


def _say(message: str) -> None:
    sys.stderr.write(f"romexp: {message}\n")


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
