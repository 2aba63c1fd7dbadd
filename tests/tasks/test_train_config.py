"""The configuration of task=train: what composes, what a pair brings, what the defaults are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from romexp.learning.case_edits import CaseEdits
from romexp.learning.self_sampled import SelfSampledEdits
from romexp.learning.training import Training
from romexp.tasks.train import TrainEditor

CONF = ROOT / "conf"


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield


def config(*overrides: str) -> DictConfig:
    return compose("config", overrides=["task=train", *overrides])


@pytest.mark.parametrize(("option", "kind"), [("cases", CaseEdits), ("self_sampled", SelfSampledEdits)])
def test_every_source_of_edits_builds(option: str, kind: type) -> None:
    cfg = config("editor=mend", f"task/edits={option}")
    task = instantiate(cfg.task)
    assert type(task.edits) is kind is get_class(cfg.task.edits["_target_"])
    assert set(OmegaConf.load(CONF / "task" / "edits" / f"{option}.yaml")) - {"defaults"} <= set(cfg.task.edits)
    fields = set(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    assert set(cfg.task.edits) - {"_target_"} == fields


def test_defaults_of_other_models_are_the_authors() -> None:
    task = instantiate(config("editor=mend", "model=gpt2-xl", "dataset=zsre").task)
    assert isinstance(task, TrainEditor)
    assert task.training == Training()
    assert task.locality.neighbors == 0
    assert (task.editor.rank, task.editor.n_layers, task.editor.edit_lr) == (1920, 3, 1e-4)


@pytest.mark.parametrize("editor", ["mend", "ke"])
def test_minifact_has_values_of_its_own(editor: str) -> None:
    """`romexp task=train editor=…` as it stands trains on the shipped model in minutes."""
    cfg = config(f"editor={editor}")
    written = OmegaConf.load(CONF / "task" / "model" / f"train_{editor}_minifact.yaml")
    assert OmegaConf.merge(cfg.task, written) == cfg.task
    task = instantiate(cfg.task)
    assert task.training.steps <= 2500
    assert type(task.edits.dataset).__name__ == "WorldEdits"
    assert task.edits.dataset.held_out.limit == 200
    assert config(f"editor={editor}", "task.training.steps=7").task.training.steps == 7


def test_a_test_set_can_be_named() -> None:
    cfg = config("editor=ke", "dataset@task.edits.test=minifact", "task.edits.test.limit=300")
    assert instantiate(cfg.task).edits.test.limit == 300
    assert instantiate(config("editor=ke").task).edits.test is None


@pytest.mark.parametrize("path", sorted(CONF.glob("task/model/*.yaml")), ids=lambda path: path.stem)
def test_names_of_pairs_are_names_of_options(path) -> None:  # type: ignore[no-untyped-def]
    task, editor, model = path.stem.split("_", 2)
    assert all(
        (CONF / group / f"{name}.yaml").is_file()
        for group, name in (("task", task), ("editor", editor), ("model", model))
    )
