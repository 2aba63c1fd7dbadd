"""The number that a job returns to Hydra, so that a sweeper such as Optuna's finds good settings (`objective`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig

from romexp.errors import ConfigError
from romexp.results.folder import RunFolder

Value = float | tuple[float, ...] | None
"""What a job returns: one number, or one for each name; None if it has failed or its task measures nothing."""

USUAL = ("S", "ate")
"""The objective where none is named: that of edits, that of traces (the average total effect)."""

PARTS = ("", "post/", "final/", "best/")
"""Where a short name is looked for: `S` is `post/S` for `task=edit`, and `final/S` for `task=lifelong`."""

SHOWN = 12
"""Most names in an error message."""


def job_objective(cfg: DictConfig, folder: Path | None) -> Value:
    """The number or numbers that a job returns, which `objective` names in its results.

    Raises:
        ConfigError: see `objective`.
    """
    named = cfg.get("objective")
    names = list(named) if isinstance(named, ListConfig) else named
    hydra = HydraConfig.get()
    searches = hydra.mode == RunMode.MULTIRUN and not str(hydra.sweeper.get("_target_", "")).endswith("BasicSweeper")
    if cfg.dry_run:  # There are no results; with equal numbers a search goes on, so that its jobs can be counted.
        return (0.0,) * len(names) if isinstance(names, list) else 0.0
    return objective(folder, names, wanted=searches)


def objective(folder: Path | None, names: Sequence[str] | str | None, *, wanted: bool) -> Value:
    """Read the objective of a finished run from its summary.

    Args:
        folder: the result folder; None if the task has none.
        names: a name of the summary, or several; None takes the first of `USUAL` that there is.
        wanted: whether somebody needs the number though none is named, as a sweeper that searches.

    Raises:
        ConfigError: the summary has no such number. The message says which there are.
    """
    if not names and not wanted:
        return None
    numbers = dict(_numbers((RunFolder(folder).read("summary") if folder else None) or {}))
    if isinstance(names, str):
        return _find(numbers, (names,))
    if not names:
        return _find(numbers, USUAL)
    return tuple(_find(numbers, (name,)) for name in names)


def _find(numbers: Mapping[str, float], names: Sequence[str]) -> float:
    """The number that the first of the names means. Capital letters make no difference."""
    known = {name.lower(): value for name, value in numbers.items()}
    for name in names:
        for part in PARTS:
            if (value := known.get(f"{part}{name}".lower())) is not None:
                return value
    there = [name.removeprefix("post/") for name in numbers]
    more = ", …" if len(there) > SHOWN else ""
    said = f"there are {', '.join(there[:SHOWN])}{more}" if there else "it has no numbers"
    raise ConfigError(f"objective: the run has no {' or '.join(names)} ({said})")


def _numbers(summary: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers in a summary by name, as in `post/S`. Of statistics, that is the mean. Edited models first."""
    for key in sorted(summary, key=lambda key: key == "pre"):
        value, name = summary[key], f"{above}{key}"
        if isinstance(value, Mapping):
            value = value.get("mean") if "mean" in value else value
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)
