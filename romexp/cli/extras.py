"""What the command does besides running a job (`extras` in `conf/config.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from rich.text import Text
from rich.tree import Tree


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Switches of the command.

    Attributes:
        print_config: print the configuration as a tree before a job begins.
    """

    print_config: bool = False


def config_tree(config: Mapping[str, Any]) -> Tree:
    """The configuration as a tree for the terminal: a branch for each part, with its values as YAML.

    Args:
        config: plain values, resolved and without secrets.
    """
    tree = Tree("configuration")
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    tree.add(_yaml(plain))
    for key, value in config.items():
        if isinstance(value, Mapping):
            tree.add(Text(str(key))).add(_yaml(value))
    return tree


def _yaml(values: Mapping[str, Any]) -> Text:
    return Text(OmegaConf.to_yaml(OmegaConf.create(dict(values))).rstrip())
