"""Refuses top-level settings that would have no effect, because the chosen task does not read them.

What a task reads is found from the interpolations in its configuration, as `${prompt}` in `conf/task/trace.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from romexp.cli.validate_config import SHARED
from romexp.compose import CONF
from romexp.errors import ConfigError

READ_BY_EVERY_RUN = ("task", "tracker", "extras")
"""Top-level parts from which a run is built."""


GLOBAL_GROUPS = ("experiment", "hparams_search", "debug")
"""Groups whose options set values anywhere, and which have no values of their own."""


def refuse_unread(cfg: DictConfig, *, task: str, overrides: Iterable[str], groups: Collection[str]) -> None:
    """Look at the settings that the user gives, on the command line or in a file of a sweep or an experiment.

    Args:
        cfg: the composed configuration, not resolved.
        task: the task's name for messages.
        overrides: what stands on the command line.
        groups: the configuration groups.

    Raises:
        ConfigError: the task does not read a setting that is given, or there is no such setting. Every such setting is
            named.
    """
    shipped = OmegaConf.load(CONF / "config.yaml")
    written = {re.split(r"[=.]", override.lstrip("+~"))[0] for override in overrides}
    problems = [
        f"{key}: it is the name of a group and holds no value ({key}=<option> chooses one)"
        for key in GLOBAL_GROUPS
        if key in cfg
    ]
    for key in set(cfg) - set(groups) - set(SHARED) - {"task"}:
        if key not in shipped:
            if key not in _names_in(_unresolved(cfg)):
                problems.append(f"{key}: no such setting")
        elif (key in written or cfg._get_node(key) != shipped._get_node(key)) and key not in _read_by(cfg):
            readers = [f"task={name}" for name in _readers(str(key))]
            does = f"{' and '.join(readers)} {'does' if len(readers) == 1 else 'do'}" if readers else "no task does"
            problems.append(f"{key}: task={task} does not read it ({does})")
    if problems:
        raise ConfigError("; ".join(sorted(problems)))


def _read_by(cfg: DictConfig) -> set[str]:
    """Top-level names that the task reads, itself or through its parts."""
    values, found, coming = _unresolved(cfg), set(), set(READ_BY_EVERY_RUN)
    while coming:
        found |= coming
        coming = {name for key in coming for name in _names_in(values.get(key))} - found
    return found


def _readers(setting: str) -> list[str]:
    """The shipped tasks whose files name this setting."""
    files = sorted((CONF / "task").glob("*.yaml"))
    return [file.stem for file in files if setting in _names_in(OmegaConf.to_container(OmegaConf.load(file)))]


def _names_in(value: Any) -> set[str]:
    """Top-level names in the interpolations of a value that is not resolved, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {name for item in value for name in _names_in(item)}
    return set(re.findall(r"\$\{([A-Za-z_]\w*)", value)) if isinstance(value, str) else set()


def _unresolved(cfg: DictConfig) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    return values
