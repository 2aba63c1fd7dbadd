"""Which layers the jobs of a sweep edit, so that the first of them can measure the second moments of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from romexp.cli.sweep import planned_overrides

MOMENTS_DEPEND_ON = ("model", "covariance", "corpus", "cache_dir")
"""Groups and settings that decide which second moments a job needs, besides its layer."""


def layers_of_sweep(folder: Path | None, overrides: Sequence[str], *, n_layers: int) -> list[int]:
    """The layers of the jobs that need second moments of the same model and the same texts as this job.

    Only jobs that name their layer on the command line (`editor.layer`, `editor.layer_fraction`) are known without
    composing their configuration.

    Args:
        folder: the folder of the sweep, in which Hydra has stored what it was asked for; None if there is no sweep.
        overrides: this job's overrides.
        n_layers: number of the model's layers.

    Returns:
        0-based layers, in the order of the jobs. Some may not exist in the model.
    """
    own = _by_name(overrides)
    jobs = [_by_name(job) for job in _planned(folder)] if folder else []
    same = [job for job in jobs if _on_moments(job) == _on_moments(own)]
    found = [layer for job in same if (layer := _layer(job, n_layers)) is not None]
    return list(dict.fromkeys(found))


def _planned(folder: Path) -> Sequence[Sequence[str]]:
    """Overrides of each job; empty if they are not known, as with a sweeper that chooses them while the sweep runs."""
    try:
        stored = OmegaConf.load(folder / "multirun.yaml")
        return planned_overrides(stored.hydra) or ()
    except (OSError, YAMLError, OmegaConfBaseException):
        return ()


def _by_name(overrides: Sequence[str]) -> dict[str, str]:
    return {name.lstrip("+"): value for name, _, value in (each.partition("=") for each in overrides)}


def _on_moments(job: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in job.items() if name.split(".")[0].split("@")[0] in MOMENTS_DEPEND_ON}


def _layer(job: Mapping[str, str], n_layers: int) -> int | None:
    try:
        if "editor.layer" in job:
            return int(job["editor.layer"])
        return round(float(job["editor.layer_fraction"]) * n_layers) if "editor.layer_fraction" in job else None
    except ValueError:  # null, or traced
        return None
