"""A configuration from overrides, as the command line would compose it.

The Python face uses it, and tasks that ask what an option means; so a method's settings for a model are the same
everywhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import romexp
from romexp.errors import ConfigError

CONF = Path(romexp.__file__).resolve().parent / "conf"


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """`conf/config.yaml` with overrides as on the command line (`model=gpt2-xl`, `editor.layer=3`).

    It may be called inside a running command, and in a process that uses Hydra for something else.

    Raises:
        ConfigError: there is no such option or setting.
    """
    held, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            return compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from error
    finally:
        GlobalHydra.instance().hydra = held


def options(group: str) -> list[str]:
    """The options of a configuration group, by name."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def check_option(group: str, name: str, *, called: str) -> str:
    """The name, if it is an option of the group.

    Args:
        called: what the message calls it, as `method`.

    Raises:
        ConfigError: there is no such option; the message names those that look like it, else all.
    """
    known = options(group)
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {', '.join(known)}"
    raise ConfigError(f"{called}: there is no {name!r} ({hint})")
