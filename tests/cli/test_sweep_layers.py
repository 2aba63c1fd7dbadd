"""The first job of a layer sweep measures the second moments of all its layers; the others find them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tiny_runs import Command

from romexp.cli.sweep_layers import layers_of_sweep
from romexp.stats import covariance

SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def stored(folder: Path, task: list[str], params: dict[str, str] | None = None, sweeper: str = SWEEPER) -> Path:
    """A sweep's folder, with what Hydra stores there before the first job."""
    hydra = {"sweeper": {"_target_": sweeper, "params": params}, "overrides": {"task": task}}
    OmegaConf.save(OmegaConf.create({"hydra": hydra, "editor": {"layer": "${nothing}"}}), folder / "multirun.yaml")
    return folder


def test_layers_on_the_command_line_or_in_the_file_of_a_sweep(tmp_path: Path) -> None:
    layers = ["editor=rome", "editor.layer=5,3,5,1"]
    assert layers_of_sweep(stored(tmp_path, layers), ["editor=rome", "editor.layer=5"], n_layers=8) == [5, 3, 1]
    ranged = stored(tmp_path, ["model=gpt2-xl"], {"editor.layer": "range(0, 4)", "seed": "1,2"})
    own = ["editor.layer=0", "seed=1", "model=gpt2-xl"]
    assert layers_of_sweep(ranged, own, n_layers=48) == [0, 1, 2, 3]


def test_fractions_are_layers(tmp_path: Path) -> None:
    folder = stored(tmp_path, ["editor.layer_fraction=0.25,0.5"])
    assert layers_of_sweep(folder, ["editor.layer_fraction=0.5"], n_layers=30) == [8, 15]


def test_only_jobs_with_the_same_model_and_texts(tmp_path: Path) -> None:
    folder = stored(tmp_path, ["model=a,b", "+covariance.max_tokens=10,20", "editor.layer=1,2", "editor.v_lr=0.1,0.5"])
    own = ["model=a", "+covariance.max_tokens=20", "editor.layer=2", "editor.v_lr=0.1"]
    assert layers_of_sweep(folder, own, n_layers=8) == [1, 2]
    assert layers_of_sweep(folder, ["model=c"], n_layers=8) == []


@pytest.mark.parametrize("layers", ["null,traced", "x,1.5"])
def test_layers_that_are_no_numbers(tmp_path: Path, layers: str) -> None:
    assert layers_of_sweep(stored(tmp_path, [f"editor.layer={layers}"]), [], n_layers=8) == []


def test_nothing_is_known_of_other_sweepers_or_without_a_sweep(tmp_path: Path) -> None:
    assert layers_of_sweep(None, ["editor.layer=2"], n_layers=8) == []
    assert layers_of_sweep(tmp_path, ["editor.layer=2"], n_layers=8) == []
    other = stored(tmp_path, ["editor.layer=1,2"], sweeper="hydra_plugins.optuna.OptunaSweeper")
    assert layers_of_sweep(other, ["editor.layer=2"], n_layers=8) == []
    (tmp_path / "multirun.yaml").write_text("{")
    assert layers_of_sweep(tmp_path, ["editor.layer=2"], n_layers=8) == []


def test_a_sweep_reads_its_texts_once(
    romexp: Command, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[int]] = []
    fit = covariance.fit

    def counting(lm: Any, texts: Any, layers: list[int], **settings: Any) -> Any:
        passes.append(sorted(layers))
        return fit(lm, texts, layers, **settings)

    monkeypatch.setattr(covariance, "fit", counting)
    measured = ["editor.mom2_adjustment=true", "covariance=sampled", "dataset.limit=1", f"cache_dir={tmp_path / 'c'}"]
    assert romexp(*tiny, *measured, "editor.layer=3,1,77,2", "-m").status == 2, "there is no layer 77"
    assert passes == [[1, 2, 3]]
    manifests = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/edit/**/manifest.json")]
    used = [each["second_moments"] for each in manifests if each.get("second_moments")]
    assert sorted(layer for each in used for layer in each) == ["1", "2", "3"]
    assert {entry["tokens"] for each in used for entry in each.values()} == {640}
    alone = romexp(*tiny, *measured, "covariance.max_tokens=700", "editor.layer=1", f"output_dir={tmp_path / 'one'}")
    assert (alone.status, passes[1:]) == (0, [[1]])
    assert json.loads((tmp_path / "one" / "manifest.json").read_text())["second_moments"]["1"]["tokens"] == 700
