"""Every file in sweeps/wandb/ is a W&B sweep whose runs all compose."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from romexp.cli.validate_config import check

FILES = sorted((ROOT / "sweeps" / "wandb").glob("*.yaml"))
KNOWN = {"project", "name", "program", "command", "method", "metric", "parameters"}
MACRO = "${args_no_hyphens}"


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def runs(config: dict[str, Any]) -> Iterator[list[str]]:
    """What W&B's agent would call for each point of the grid, after the program's name."""
    values = {name: one["values"] for name, one in config["parameters"].items()}
    for point in itertools.product(*values.values()):
        chosen = {name: {"value": value} for name, value in zip(values, point, strict=True)}
        arguments = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
        command = create_sweep_command(copy.copy(config["command"]))
        at = command.index(MACRO)
        yield [*command[1:at], *arguments, *command[at + 1 :]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_a_grid_that_wandb_takes(path: Path) -> None:
    config = read(path)
    assert set(config) == KNOWN
    assert config == _validate_config_and_fill_distribution(config)
    assert (config["name"], config["program"], config["method"]) == (path.stem, "romexp", "grid")
    assert config["command"][0] == "romexp"
    assert config["command"].count(MACRO) == 1
    assert config["metric"] == {"name": "post/S", "goal": "maximize"}, "a name that runs log"
    for name, parameter in config["parameters"].items():
        assert set(parameter) == {"values"}, name
        assert None not in parameter["values"], f"{name}: W&B writes null as None"
        assert len(set(parameter["values"])) == len(parameter["values"]) > 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_run_composes_and_differs(path: Path) -> None:
    jobs = list(runs(read(path)))
    seen: set[str] = set()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        for overrides in jobs if len(jobs) < 10 else jobs[:: len(jobs) // 7]:
            cfg = compose("config", overrides=overrides)
            check(OmegaConf.to_container(cfg.editor, resolve=True), where="editor")  # type: ignore[arg-type]
            seen.add(repr((instantiate(cfg.editor), cfg.seed)))
    assert len(seen) > 4, "the parameters arrive"


def test_the_test_sees_a_bad_value() -> None:
    """A control: None, as W&B would write null, is text and no number."""
    config = read(ROOT / "sweeps" / "wandb" / "fig17_minifact.yaml")
    config["parameters"]["editor.norm_constraint"]["values"] = [None]
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=next(runs(config)))
    with pytest.raises(Exception, match="norm_constraint"):
        check(OmegaConf.to_container(cfg.editor), where="editor")  # type: ignore[arg-type]
