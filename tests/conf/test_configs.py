"""Every YAML file in conf/ composes, builds what it names, and says what its values mean."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from romexp.minifact.train import TrainMinifact

CONF = ROOT / "conf"
OPTIONS = [
    (path.parent.name, path.stem)
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name not in ("hydra", "editor_model", "experiment", "corpus")
]
NEEDED = {
    ("model", "hf"): ["model.path=x"],
    ("covariance", "text"): ["covariance.corpus.path=x"],
}
"""What the user must say besides the option."""

LEFT_OUT = {"remote", "idf_remote", "vocabulary_remote"}
"""Fields that have no line in YAML: published files, by URL and digest, that stand in the code."""


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield


def config(*overrides: str) -> DictConfig:
    return compose("config", overrides=list(overrides))


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a `_target_`, at any depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_builds_what_it_names(group: str, option: str) -> None:
    cfg = config(f"{group}={option}", *NEEDED.get((group, option), []))
    built = instantiate(cfg[group])
    assert type(built) is get_class(cfg[group]["_target_"])
    assert dataclasses.is_dataclass(built)
    with pytest.raises(dataclasses.FrozenInstanceError):
        built.name = "other"


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_yaml_and_class_have_the_same_fields(group: str, option: str) -> None:
    cfg = config(f"{group}={option}", *NEEDED.get((group, option), []))
    for node in targets(OmegaConf.to_container(cfg[group])):
        target = node["_target_"]
        if target.rsplit(".", 1)[1][0].islower():  # a function that gives a path
            continue
        fields = {f.name for f in dataclasses.fields(get_class(target)) if f.init} - LEFT_OUT
        assert set(node) - {"_target_"} == fields, target


@pytest.mark.parametrize("path", sorted(CONF.glob("editor_model/*.yaml")), ids=lambda path: path.stem)
def test_overrides_of_a_pair_apply_to_that_pair_alone(path: Path) -> None:
    pairs = {f"{editor}_{model}": (editor, model) for editor in names("editor") for model in names("model")}
    editor, model = pairs[path.stem]
    written = OmegaConf.load(path)
    cfg = config(f"editor={editor}", f"model={model}")
    assert written
    assert all(cfg.editor[key] == value for key, value in written.items())
    instantiate(cfg.editor)
    elsewhere = config(f"editor={editor}", "model=hf", "model.path=x")
    assert any(elsewhere.editor[key] != value for key, value in written.items())


def names(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml"))]


def test_the_command_line_wins_over_the_pairs_override() -> None:
    assert config("editor=rome", "model=gpt2-medium").editor.clamp_norm_factor == 3
    cfg = config("editor=rome", "model=gpt2-medium", "editor.clamp_norm_factor=2.5")
    assert (cfg.editor.clamp_norm_factor, cfg.editor.layer) == (2.5, 8)


def test_the_papers_hyper_parameters() -> None:
    """SPEC §3.1 and §4.1."""
    rome = {m: config("editor=rome", f"model={m}").editor for m in ("gpt2-medium", "gpt2-large", "gpt2-xl", "gpt-j-6b")}
    assert [rome[m].layer for m in rome] == [8, 12, 17, 5]
    assert [rome[m].clamp_norm_factor for m in rome] == [3, 4, 4, 4]
    bounds = {m: config("editor=ft_l", f"model={m}").editor for m in rome}
    assert [bounds[m].norm_constraint for m in bounds] == [2e-3, 1e-3, 5e-4, 5e-5]
    assert {bounds[m].layer for m in bounds} == {0}
    assert [config("editor=ft", f"model={m}").editor.layer for m in ("gpt2-xl", "gpt-j-6b")] == [1, 21]


def test_a_data_set_chooses_how_it_is_measured() -> None:
    zsre = config("dataset=zsre")
    assert "Zsre" in zsre.evaluator["_target_"]
    assert zsre.references["_target_"].endswith("NoReferences")
    assert "CounterFact" in config("dataset=counterfact").evaluator["_target_"]
    assert "CounterFact" in config("dataset=zsre", "evaluator=counterfact").evaluator["_target_"]


def test_a_model_chooses_its_second_moments() -> None:
    assert config("model=minifact").covariance.corpus.unit == "line"
    assert config("model=gpt2-xl").covariance.corpus.path == "wikimedia/wikipedia"
    assert config("model=minifact", "covariance=wikitext").covariance.corpus.path == "Salesforce/wikitext"


@pytest.mark.parametrize("off", ["off", "false", "False"])
def test_generation_can_be_switched_off_in_any_spelling(off: str) -> None:
    on = instantiate(config().evaluator)
    assert on.generates
    assert not instantiate(config(f"evaluator.generation={off}").evaluator).generates


def test_every_value_is_explained_where_it_is_defined() -> None:
    """A key with a value has a comment above it or behind it; a file that amends another leaves that to the other."""
    bare: list[str] = []
    for path in sorted(CONF.rglob("*.yaml")):
        lines = path.read_text().splitlines()
        assert lines[0].startswith("# "), f"{path} does not open with what it is"
        amends = "  - _self_" in lines and "  - /" not in path.read_text() and path.parent != CONF
        if amends or path.parent.name in ("editor_model", "experiment") or "hydra" in path.parts:
            continue
        for above, line in itertools.pairwise(lines):
            key = re.match(r"\s*(\w+): \S", line)
            explained = above.lstrip().startswith("#") or " # " in line or line.endswith("}")
            if key and key[1] not in ("_target_", "defaults") and not explained:
                bare.append(f"{path.relative_to(CONF)}: {line.strip()}")
    assert bare == []


def test_experiments_only_override() -> None:
    """An experiment chooses options and sets values; it brings no key that these options do not have."""
    for name in names("experiment"):
        cfg = compose("config", overrides=[f"experiment={name}"], return_hydra_config=True)
        choices = {k: v for k, v in cfg.hydra.runtime.choices.items() if k in ("model", "dataset", "editor", "task")}
        plain = config(*(f"{group}={option}" for group, option in choices.items()))
        overridden = config(f"experiment={name}")
        assert set(flat(OmegaConf.to_container(overridden))) == set(flat(OmegaConf.to_container(plain)))
        assert overridden != config()
        instantiate(overridden.model), instantiate(overridden.editor), instantiate(overridden.dataset)
        assert f"experiment={name}" in (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()[1]


def flat(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flat(value, f"{prefix}.{key}")
    else:
        yield prefix


def test_training_is_configured_as_the_shipped_model_was_made() -> None:
    cfg = config("task=train_minifact")
    assert instantiate(cfg.task.trainer) == TrainMinifact()
    assert instantiate(config("task=train_minifact", "seed=1").task.trainer) != TrainMinifact()
