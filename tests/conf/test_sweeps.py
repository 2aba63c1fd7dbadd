"""Every file in sweeps/ is a multirun study whose jobs all compose, and says what it is; so are the launchers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from romexp.cli.run_job import plain
from romexp.cli.validate_config import check

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


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(config_dir=str(ROOT / "sweeps"), version_base="1.3"):
        yield


def composed(name: str, *overrides: str) -> DictConfig:
    search = f"hydra.searchpath=[file://{ROOT / 'conf'}]"
    return compose(name, overrides=[search, *overrides], return_hydra_config=True)


def jobs(name: str) -> Iterator[tuple[tuple[str, ...], DictConfig]]:
    """Overrides and configuration of every job.

    Composed once for each choice of groups; values then only replace values, in the configuration that came before.
    """
    hydra = composed(name).hydra
    assert hydra.mode.name == "MULTIRUN"
    parser = OverridesParser.create()
    overrides = parser.parse_overrides([f"{k}={v}" for k, v in hydra.sweeper.params.items()])
    swept = [[f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()] for o in overrides]
    chosen = [values for o, values in zip(overrides, swept, strict=True) if "." not in o.key_or_group]
    others = [values for o, values in zip(overrides, swept, strict=True) if "." in o.key_or_group]
    for groups in itertools.product(*chosen):
        base = composed(name, *groups)
        with open_dict(base):
            del base["hydra"]
        for values in itertools.product(*others):
            for override in parser.parse_overrides(list(values)):
                assert OmegaConf.select(base, override.key_or_group, default="absent") != "absent"
                OmegaConf.update(base, override.key_or_group, override.value())
            yield (*groups, *values), base


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_job_of_a_sweep_composes(path: Path) -> None:
    built = set()
    for overrides, cfg in jobs(path.stem):
        if not built:
            check(plain(cfg))
        parts = {
            name: cfg[name] for name in ("model", "editor", "tracer") if any(o.startswith(name) for o in overrides)
        }
        for name, part in parts.items():
            check(OmegaConf.to_container(part, resolve=True), where=name)  # type: ignore[arg-type]
        built.add((overrides, repr({name: instantiate(part) for name, part in parts.items()})))
        assert cfg.study == path.stem
    assert len({parts for _, parts in built}) == len(built) > 1, "no two jobs are the same"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_opens_with_what_it_is_and_its_command(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert f"romexp -cn {path.stem}\n" in path.read_text().partition("defaults:")[0]


def test_every_study_of_the_paper_is_there_and_has_a_twin_that_runs_offline() -> None:
    names = {path.stem for path in SWEEPS}
    assert names >= STUDIES
    for study in STUDIES:
        twin = next(word for word in (ROOT / "sweeps" / f"{study}.yaml").read_text().split() if "_minifact" in word)
        assert twin in names
        cfg = composed(twin)
        assert (cfg.model.name, cfg.dataset.name.startswith("minifact")) == ("minifact", True)


def test_the_papers_settings() -> None:
    """SPEC §6 and §8: model, records and what is swept."""
    counts = {name: sum(1 for _ in jobs(name)) for name in ("fig5", "fig17", "fig18", "attn_edit")}
    assert counts == {"fig5": 48 * 4, "fig17": 48 * 4, "fig18": 28 * 4, "attn_edit": 10}
    found = {name: composed(name) for name in STUDIES}
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
    bounds = {cfg.editor.norm_constraint for _, cfg in jobs("fig18")}
    assert bounds == {1e-5, 5e-5, 1e-4, None}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_has_settings_that_its_plugin_knows(name: str) -> None:
    written = composed("fig5", f"hydra/launcher={name}").hydra.launcher
    try:
        schema = get_class(f"hydra_plugins.{LAUNCHERS[name]}")
    except Exception as error:  # Hydra's own, which says nothing of its kind
        pytest.skip(f"the plugin is not installed: {error}")
    known = {field.name: field.default for field in fields(schema)}
    assert set(written) <= set(known)
    assert written._target_ == known["_target_"]


def test_launchers_explain_their_values() -> None:
    for path in sorted((ROOT / "conf" / "hydra" / "launcher").glob("*.yaml")):
        assert path.stem in LAUNCHERS
        lines = path.read_text().splitlines()
        for above, line in itertools.pairwise(lines):
            bare = line.lstrip().startswith(("#", "_target_", "ray:"))
            assert bare or above.lstrip().startswith("#"), f"{path.name}: {line}"


def test_the_study_is_the_trackers_heading() -> None:
    cfg: Any = composed("fig5")
    assert instantiate(cfg.tracker).group == "fig5"
    assert instantiate(composed("fig5", "study=mine").tracker).group == "mine"
    assert instantiate(composed("fig5", "tracker=none").tracker) is not None
