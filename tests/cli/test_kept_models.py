"""One model stays loaded from job to job; another one, or the same one changed on disk, takes its place."""

from __future__ import annotations

import gc
import pickle
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from romexp.cli.kept_between_jobs import LoadedModels
from romexp.lm.model import PretrainedModel


@pytest.fixture
def model(tiny_dir: Path, tmp_path: Path) -> PretrainedModel:
    return PretrainedModel(path=str(shutil.copytree(tiny_dir, tmp_path / "tiny")), device="cpu")


def test_the_same_model_is_loaded_once(model: PretrainedModel) -> None:
    models = LoadedModels()
    first = models.load(model)
    assert models.load(replace(model)) is first


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "float64"), ("attn_implementation", "eager"), ("name", "other")],
)
def test_any_other_setting_loads_anew(model: PretrainedModel, field: str, value: str) -> None:
    models = LoadedModels()
    first = models.load(model)
    other = models.load(replace(model, **{field: value}))
    assert other is not first
    assert (other.name == "other") == (field == "name")
    assert str(getattr(other, field, "")).removeprefix("torch.") == value or field == "attn_implementation"


def test_a_model_that_changed_on_disk_is_loaded_anew(model: PretrainedModel) -> None:
    models = LoadedModels()
    first = models.load(model)
    weights = Path(model.path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes())  # a new time of change will do
    assert models.load(model) is not first


def test_never_two_at_once(model: PretrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    models = LoadedModels()
    first = weakref.ref(models.load(model))
    load, still_there = PretrainedModel.load, []

    def watched(self: PretrainedModel) -> object:
        gc.collect()
        still_there.append(first())
        return load(self)

    monkeypatch.setattr(PretrainedModel, "load", watched)
    models.load(replace(model, dtype="float64"))
    assert still_there == [None]


def test_forgetting_and_pickling_leave_nothing(model: PretrainedModel) -> None:
    models = LoadedModels()
    first = models.load(model)
    assert len(pickle.dumps(models)) < 1000
    copied = pickle.loads(pickle.dumps(models))  # noqa: S301
    assert copied.load(model) is not first
    models.forget()
    assert models.load(model) is not first
