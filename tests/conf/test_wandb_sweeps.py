"""Every file in sweeps/wandb/ is a W&B sweep whose runs all compose."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from composing import config, for_every, jobs
from conftest import ROOT
from hydra.utils import instantiate
from omegaconf import OmegaConf
from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from romexp.cli.validate_config import validate_part

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


def is_a_grid_that_wandb_takes(path: Path) -> None:
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


def every_run_composes_and_differs(path: Path) -> None:
    called = list(runs(read(path)))
    built = []
    for _, cfg in jobs(config, called):
        validate_part(OmegaConf.to_container(cfg.editor, resolve=True), where="editor")
        built.append(repr((instantiate(cfg.editor), cfg.seed)))
    assert len(set(built)) == len(called) > 4, "the parameters arrive"


def test_it_is_a_grid_that_wandb_takes() -> None:
    for_every(FILES, is_a_grid_that_wandb_takes)


def test_every_run_composes_and_differs() -> None:
    for_every(FILES, every_run_composes_and_differs)


def test_the_tests_see_bad_sweeps(tmp_path: Path) -> None:
    """A control: None, as W&B would write null, is text and no number; and what else differs in one line."""
    good = (ROOT / "sweeps" / "wandb" / "fig17_minifact.yaml").read_text()
    values = "values: [0.0005, 0.001, 0.005]"
    assert values in good
    for name, line, other in (
        ("good", "", ""),
        ("absent", "editor=ft", "editor=no_such_editor"),
        ("misspelt", "editor.layer:", "editor.layr:"),
        ("null", values, "values: [null, 0.001, 0.005]"),
        ("same", values, "values: [0.001, 0.001, 0.005]"),
        ("method", "method: grid", "method: bayes"),
        ("metric", "post/S", "S"),
        ("distribution", values, "{min: 0.0005, max: 0.005}"),
        ("without_macro", MACRO, "editor.layer=1"),
    ):
        text = good.replace("fig17_minifact", name).replace(line, other)
        (tmp_path / f"{name}.yaml").write_text(text)
    for look, bad in (
        (is_a_grid_that_wandb_takes, ["distribution", "method", "metric", "null", "same", "without_macro"]),
        (every_run_composes_and_differs, ["absent", "distribution", "misspelt", "null", "same", "without_macro"]),
    ):
        with pytest.raises(AssertionError) as seen:
            for_every(sorted(tmp_path.glob("*.yaml")), look)
        assert re.findall(rf"(?m)^{tmp_path.name}/(\w+)\.yaml: ", str(seen.value)) == bad
        if look is every_run_composes_and_differs:
            assert "expected" in str(seen.value)
