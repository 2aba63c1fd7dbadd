"""Compose each configuration once, vary it, and look at many files in one test that names all that are wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

CONF = ROOT / "conf"
Thing = TypeVar("Thing")


def for_every(things: Iterable[Thing], look: Callable[[Thing], object]) -> None:
    """Call `look` on each thing, to the last.

    Raises:
        AssertionError: at least one call failed; the message has a paragraph for each. Or there was nothing to look at.
    """
    things, wrong = list(things), []
    if not things:
        raise AssertionError("there is nothing to look at")
    for thing in things:
        try:
            look(thing)
        except (Exception, pytest.fail.Exception) as error:  # What `pytest.raises` fails with is no Exception.
            wrong.append(f"{label(thing)}: {type(error).__name__}: {error}")
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(things)} are wrong\n" + "\n".join(wrong))


def label(thing: object) -> str:
    """How a message names a thing: a path by its end, an option as group/option."""
    if isinstance(thing, Path):
        return f"{thing.parent.name}/{thing.name}"
    return "/".join(thing) if isinstance(thing, tuple) else str(thing)


@cache
def config(*overrides: str, conf: Path = CONF) -> DictConfig:
    """What `romexp <overrides>` runs, read-only."""
    with initialize_config_dir(config_dir=str(conf), version_base="1.3"):
        cfg = compose("config", overrides=list(overrides))
    OmegaConf.set_readonly(cfg, True)
    return cfg


@cache
def sweep(path: Path, *overrides: str) -> DictConfig:
    """What `romexp -cn <path> <overrides>` begins with, read-only and with Hydra's own settings."""
    search = f"hydra.searchpath=[file://{CONF}]"
    with initialize_config_dir(config_dir=str(path.parent), version_base="1.3"):
        cfg = compose(path.stem, overrides=[search, *overrides], return_hydra_config=True)
    OmegaConf.set_readonly(cfg, True)
    return cfg


def jobs(
    composed: Callable[..., DictConfig], runs: Iterable[Sequence[str]]
) -> Iterator[tuple[tuple[str, ...], DictConfig]]:
    """Overrides and configuration of every run of a sweep.

    Composed once for each choice of groups. Values only replace values, so each run sets its own in the configuration
    of the run before, and all runs must set the same keys.
    """
    before: tuple[str, ...] | None = None
    for run in runs:
        groups = tuple(text for text in run if is_group(parsed(text)))
        if groups != before:
            base, before = writable(composed(*groups)), groups
        for text in run:
            if text not in groups:
                replace(base, parsed(text))
        yield tuple(run), base


@cache
def parsed(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def is_group(override: Override) -> bool:
    return (CONF / override.key_or_group).is_dir()


def writable(cfg: DictConfig) -> DictConfig:
    """A copy to be changed, without Hydra's own settings."""
    mine = copy.deepcopy(cfg)
    OmegaConf.set_readonly(mine, False)
    with open_dict(mine):
        mine.pop("hydra", None)
    return mine


def replace(cfg: DictConfig, override: Override) -> None:
    assert OmegaConf.select(cfg, override.key_or_group, default="absent") != "absent", override.key_or_group
    OmegaConf.update(cfg, override.key_or_group, override.value())
