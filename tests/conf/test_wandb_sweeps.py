"""`task=wandb_sweep` makes of every study a W&B sweep whose runs are the jobs of the study."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from composing import for_every
from conftest import ROOT
from tiny_runs import Command
from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from romexp.cli.sweep import planned_overrides
from romexp.compose import compose_sweep
from romexp.errors import ConfigError
from romexp.tasks.wandb_sweep import MACRO, WandbSweep

STUDIES = sorted((ROOT / "sweeps").glob("*.yaml"))


METRICS = {"Trace": "ate", "Lifelong": "final/S", "Localization": None, "": "post/S"}
"""What a study wants to be large, by the class of its task; the first that fits. A localization has no such number."""


def runs(sweep: dict[str, Any]) -> Iterator[list[str]]:
    """What W&B's agent would call for each point of the grid, after the program's name."""
    values = {name: one["values"] for name, one in sweep["parameters"].items()}
    for point in itertools.product(*values.values()):
        chosen = {name: {"value": value} for name, value in zip(values, point, strict=True)}
        arguments = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
        command = create_sweep_command(copy.copy(sweep["command"]))
        at = command.index(MACRO)
        yield [*command[1:at], *arguments, *command[at + 1 :]]


def is_the_study(path: Path) -> None:
    """W&B takes it, and its agents call what `romexp -cn <study>` would run."""
    sweep = WandbSweep(study=path.stem).sweep()
    assert sweep == _validate_config_and_fill_distribution(copy.deepcopy(sweep))
    assert sweep == yaml.safe_load(yaml.safe_dump(sweep))
    called = list(runs(sweep))
    assert all(call[:3] == ["-cn", path.stem, "hydra.mode=RUN"] for call in called)
    jobs = planned_overrides(compose_sweep(path.stem).hydra, given=[])
    assert sorted(map(_as_values, called)) == sorted(map(_as_values, jobs or ()))
    task = compose_sweep(path.stem).task._target_
    metric = next(name for part, name in METRICS.items() if part in task)
    assert sweep.get("metric") == (metric and {"name": metric, "goal": "maximize"})


def _as_values(overrides: Any) -> str:
    """The overrides of one run; numbers as numbers, since `5e-4` and `0.0005` are one value."""
    pairs = (each.partition("=") for each in overrides if not each.startswith(("-", "hydra.")) and "=" in each)
    return json.dumps(
        sorted((key, yaml.safe_load(value) if "e-" not in value else float(value)) for key, _, value in pairs)
    )


@pytest.mark.parametrize("shipped", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_study_becomes_a_sweep_of_the_same_jobs(shipped: bool) -> None:
    """Those of the shipped model, and all others."""
    for_every([path for path in STUDIES if ("minifact" in path.stem) is shipped], is_the_study)


def test_the_command_writes_the_file_and_says_how_to_begin(romexp: Command, tmp_path: Path) -> None:
    done = romexp("task=wandb_sweep", "study=fig17_minifact", "task.overrides=['dataset.limit=3']")
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1] == "to begin it: wandb sweep outputs/wandb_sweeps/fig17_minifact.yaml"
    text = (tmp_path / "outputs" / "wandb_sweeps" / "fig17_minifact.yaml").read_text()
    sweep = yaml.safe_load(text)
    assert text.startswith("# Made from the study by romexp task=wandb_sweep study=fig17_minifact ")
    assert sweep["parameters"]["editor.norm_constraint"]["values"] == [0.0005, 0.001, 0.005, "null"]
    assert sweep["command"][-2:] == ["dataset.limit=3", MACRO]


def test_a_study_of_ones_own(tmp_path: Path) -> None:
    params = {"sweeper": {"params": {"editor.layer": "0,2", "seed": 3}}, "mode": "MULTIRUN"}
    (tmp_path / "mine.yaml").write_text(json.dumps({"defaults": ["config", "_self_"], "hydra": params}))
    sweep = WandbSweep(study="mine", folder=tmp_path).sweep()
    assert sweep["command"][1:3] == ["-cd", str(tmp_path)]
    assert (sweep["command"][-2], list(sweep["parameters"])) == ("seed=3", ["editor.layer"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"editor.v_lr": "interval(0,1)"}, r"W&B cannot make a grid of editor\.v_lr=interval"),
        ({"seed": "3"}, "names nothing to sweep over"),
    ],
)
def test_what_is_no_grid_is_one_line(params: dict[str, str], message: str, tmp_path: Path) -> None:
    swept = {"defaults": ["config", "_self_"], "hydra": {"sweeper": {"params": params}}}
    (tmp_path / "mine.yaml").write_text(json.dumps(swept))
    with pytest.raises(ConfigError, match=message):
        WandbSweep(study="mine", folder=tmp_path).sweep()


def test_a_study_must_be_named(romexp: Command) -> None:
    assert "study: which one? (attn_edit, attn_edit_minifact, " in romexp("task=wandb_sweep").err
    assert "no_such" in romexp("task=wandb_sweep", "study=no_such").err
