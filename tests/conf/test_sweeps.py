"""Every file in sweeps/ is a multirun study whose jobs all compose, and says what it is; so are the launchers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from composing import for_every, is_group, jobs, parsed, sweep
from conftest import ROOT
from hydra.core.override_parser.types import Override
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from romexp.cli.run_job import plain
from romexp.cli.validate_config import validate_config, validate_part

SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
STUDIES = {
    "table1", "table4_gpt2-xl", "table4_gpt-j", "table5", "table6", "fig5", "fig17", "fig18", "attn_edit", "tracing",
}  # fmt: skip
LAUNCHERS = {
    "workers": "hydra_joblib_launcher.config.JobLibLauncherConf",
    "processes": "hydra_submitit_launcher.config.LocalQueueConf",
    "slurm": "hydra_submitit_launcher.config.SlurmQueueConf",
    "ray_cluster": "hydra_ray_launcher._config.RayLauncherConf",
}


def named(name: str) -> Path:
    return ROOT / "sweeps" / f"{name}.yaml"


def jobs_of(path: Path) -> Iterator[tuple[tuple[str, ...], DictConfig]]:
    """Overrides and configuration of every job, in an order that composes each choice of groups once."""
    params = sweep(path).hydra.sweeper.params
    overrides = [parsed(f"{key}={values}") for key, values in params.items()]
    swept = [[f"{o.key_or_group}={value}" for value in values_of(o)] for o in overrides]
    in_order = sorted(swept, key=lambda values: not is_group(parsed(values[0])))

    def composed(*groups: str) -> DictConfig:
        cfg = sweep(path, *groups)
        assert (cfg.hydra.mode.name, cfg.hydra.sweeper.params) == ("MULTIRUN", params)
        return cfg

    return jobs(composed, itertools.product(*in_order))


def values_of(override: Override) -> list[str]:
    """The values of a parameter of a sweep, which may be a single one."""
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [str(override.value())]


def first_job(name: str) -> DictConfig:
    return next(cfg for _, cfg in jobs_of(named(name)))


def every_job_composes(path: Path) -> None:
    built = set()
    for overrides, cfg in jobs_of(path):
        if not built:
            validate_config(plain(cfg))
        parts = {
            name: cfg[name] for name in ("model", "editor", "tracer") if any(o.startswith(name) for o in overrides)
        }
        for name, part in parts.items():
            validate_part(OmegaConf.to_container(part, resolve=True), where=name)
        task = OmegaConf.to_container(cfg.task) if any(o.startswith("task.") for o in overrides) else None
        built.add((overrides, repr(({name: instantiate(part) for name, part in parts.items()}, task))))
        assert cfg.study == path.stem
    assert len({parts for _, parts in built}) == len(built) > 1, "no two jobs are the same"


def opens_as_a_sweep(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert f"romexp -cn {path.stem}\n" in path.read_text().partition("defaults:")[0]


@pytest.mark.parametrize("shipped", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_job_of_a_sweep_composes(shipped: bool) -> None:
    """Those of the shipped model, and all others."""
    for_every([path for path in SWEEPS if ("minifact" in path.stem) is shipped], every_job_composes)


def test_a_sweep_opens_with_what_it_is_and_its_command() -> None:
    for_every(SWEEPS, opens_as_a_sweep)


BAD_JOBS = {
    "absent": ("params:", "params:\n      editor: no_such_editor"),
    "misspelt": ("editor.layer: 1,2", "editor.layr: 1,2"),
    "mistyped": ("editor.layer: 1,2", "editor.clamp_norm_factor: 4,four"),
    "same": ("editor.layer: 1,2", "editor.layer: 1,1"),
    "single": ("editor.layer: 1,2", "editor.layer: 1"),
    "other_study": ("study: other_study", "study: good"),
    "no_sweep": ("mode: MULTIRUN", "mode: RUN"),
}
BAD_OPENINGS = {
    "headless": ("# Two", "#two"),
    "other_command": ("-cn other_command", "-cn good"),
}


@pytest.mark.parametrize(("look", "bad"), [(every_job_composes, BAD_JOBS), (opens_as_a_sweep, BAD_OPENINGS)])
def test_the_tests_see_bad_sweeps(
    look: Callable[[Path], None], bad: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    """A control: each of these differs in one line from a sweep that passes."""
    text = (
        "# Two layers: romexp -cn {0}\ndefaults: [config, _self_]\nstudy: {0}\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      editor.layer: 1,2\n"
    )
    for name, (line, other) in {"good": ("", ""), **bad}.items():
        (tmp_path / f"{name}.yaml").write_text(text.format(name).replace(line, other))
    with pytest.raises(AssertionError) as seen:
        for_every(sorted(tmp_path.glob("*.yaml")), look)
    assert re.findall(rf"(?m)^{tmp_path.name}/(\w+)\.yaml: ", str(seen.value)) == sorted(bad)


def has_a_twin_that_runs_offline(study: str, *, twin: str = "") -> None:
    twin = twin or next(word for word in named(study).read_text().split() if "_minifact" in word)
    assert named(twin) in SWEEPS
    cfg = first_job(twin)
    assert (cfg.model.name, cfg.dataset.name.startswith("minifact")) == ("minifact", True)


def test_every_study_of_the_paper_is_there_and_has_a_twin_that_runs_offline() -> None:
    assert {path.stem for path in SWEEPS} >= STUDIES
    for_every(sorted(STUDIES), has_a_twin_that_runs_offline)
    with pytest.raises(AssertionError, match="gpt2-xl"):  # This is a control: a study of the paper is no twin.
        has_a_twin_that_runs_offline("fig5", twin="fig5")


def test_the_papers_settings() -> None:
    """docs/method.md §6 and §8: model, records and what is swept."""
    counts = {name: sum(1 for _ in jobs_of(named(name))) for name in ("fig5", "fig17", "fig18", "attn_edit")}
    assert counts == {"fig5": 48 * 4, "fig17": 48 * 4, "fig18": 28 * 4, "attn_edit": 10}
    found = {name: first_job(name) for name in STUDIES}
    limits = {name: cfg.dataset.limit for name, cfg in found.items()}
    assert limits == {
        "table1": 10000, "table4_gpt2-xl": 7500, "table4_gpt-j": 2000, "table5": 7500, "table6": 10000,
        "fig5": 100, "fig17": 50, "fig18": 50, "attn_edit": 50, "tracing": None,
    }  # fmt: skip
    assert {found[n].model.name for n in ("table1", "table4_gpt2-xl", "fig5", "fig17", "attn_edit")} == {"gpt2-xl"}
    assert {found[n].model.name for n in ("table4_gpt-j", "fig18")} == {"gpt-j-6b"}
    assert found["attn_edit"].editor.layer_fraction * 48 == 33
    off = [name for name, cfg in found.items() if cfg.evaluator.get("generation") == "off"]
    assert sorted(off) == ["attn_edit", "fig17", "fig18", "fig5"]
    bounds = {cfg.editor.norm_constraint for _, cfg in jobs_of(named("fig18"))}
    assert bounds == {1e-5, 5e-5, 1e-4, None}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_has_settings_that_its_plugin_knows(name: str) -> None:
    """One test each, since plugins may be missing."""
    written = sweep(named("fig5"), f"hydra/launcher={name}").hydra.launcher
    try:
        schema = get_class(f"hydra_plugins.{LAUNCHERS[name]}")
    except Exception as error:  # Hydra's own error says nothing of its kind.
        pytest.skip(f"the plugin is not installed: {error}")
    known = {field.name: field.default for field in fields(schema)}
    assert set(written) <= set(known)
    assert written._target_ == known["_target_"]


def launcher_explains_its_values(path: Path) -> None:
    assert path.stem in LAUNCHERS
    for above, line in itertools.pairwise(path.read_text().splitlines()):
        bare = line.lstrip().startswith(("#", "_target_", "ray:"))
        assert bare or above.lstrip().startswith("#"), line


def test_launchers_explain_their_values(tmp_path: Path) -> None:
    launchers = sorted((ROOT / "conf" / "hydra" / "launcher").glob("*.yaml"))
    for_every(launchers, launcher_explains_its_values)
    for path in launchers:  # This is a control: the same files lack their last comment.
        head, _, tail = path.read_text().rpartition("  #" if path.stem == "ray_cluster" else "\n#")
        (tmp_path / path.name).write_text(head + "\n" + tail.partition("\n")[2])
    with pytest.raises(AssertionError, match=f"{len(launchers)} of {len(launchers)} are wrong"):
        for_every(sorted(tmp_path.glob("*.yaml")), launcher_explains_its_values)


def test_the_study_is_the_trackers_heading() -> None:
    cfg: Any = sweep(named("fig5"))
    assert instantiate(cfg.tracker).group == "fig5"
    assert instantiate(sweep(named("fig5"), "study=mine").tracker).group == "mine"
    assert instantiate(sweep(named("fig5"), "tracker=none").tracker) is not None
