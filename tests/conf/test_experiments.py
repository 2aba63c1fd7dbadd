"""An experiment, and a way to debug, choose options and set values, and bring nothing of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from composing import CONF, config, for_every, writable
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from test_configs import OPTIONS, chosen


def only_overrides(path: Path) -> None:
    """An experiment chooses options and sets values; it brings no key that these options do not have."""
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        search = f"hydra.searchpath=[file://{path.parents[1]}]"
        cfg = compose("config", overrides=[search, f"{path.parent.name}={path.stem}"], return_hydra_config=True)
    choices = {group: name for group, name in cfg.hydra.runtime.choices.items() if (group, name) in OPTIONS}
    overridden = writable(cfg)
    assert set(choices) == {group for group, _ in OPTIONS}
    assert set(overridden) == set(config())
    for option in choices.items():
        assert keys(overridden[option[0]]) == keys(chosen(option)[option[0]]), option
    assert overridden != config()
    instantiate(overridden.model), instantiate(overridden.editor), instantiate(overridden.dataset)
    assert f"{path.parent.name}={path.stem}" in path.read_text().splitlines()[1], (
        "its command stands in the second line"
    )


def keys(node: DictConfig) -> set[str]:
    """Names of all values, at any depth."""
    return set(flat(OmegaConf.to_container(node)))


def flat(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flat(value, f"{prefix}.{key}")
    else:
        yield prefix


def test_experiments_only_override() -> None:
    for_every([*sorted(CONF.glob("experiment/*.yaml")), *sorted(CONF.glob("debug/*.yaml"))], only_overrides)


def test_the_test_sees_an_experiment_that_does_more_or_nothing(tmp_path: Path) -> None:
    """A control: a new key, no change at all, another command. One that sets a value passes."""
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\n# romexp experiment={}\ndataset:\n  {}\n"
    for stem, line in (("good", "limit: 3"), ("more", "limt: 3"), ("nothing", "limit: 100")):
        (tmp_path / "experiment" / f"{stem}.yaml").write_text(text.format(stem, line))
    (tmp_path / "experiment" / "other.yaml").write_text(text.format("good", "limit: 3"))
    with pytest.raises(AssertionError, match="3 of 4 are wrong") as seen:
        for_every(sorted(tmp_path.glob("experiment/*.yaml")), only_overrides)
    assert "limt" in str(seen.value)
    assert re.findall(r"(?m)^experiment/(\w+)", str(seen.value)) == ["more", "nothing", "other"]
