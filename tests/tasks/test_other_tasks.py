"""task=covariance and task=train_minifact, small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import Command

from romexp.lm.model import PretrainedModel
from romexp.stats.second_moment import load_moments


def test_second_moments_ahead_of_time_serve_an_edit(
    romexp: Command, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text(
        "\n\n".join(f"Anna {i} and Bob play the violin in Paris {i}." for i in range(60))
    )
    fitting = ["covariance=text", f"covariance.corpus.path={tmp_path}/text.txt", f"cache_dir={tmp_path}/cache"]
    done = romexp(*tiny, *fitting, "task=covariance", "task.layers=[1,2]", "task.export=true", "output_dir=moments")
    assert done.status == 0, done.err
    exported = load_moments(tmp_path / "moments" / "second_moments.safetensors")
    assert set(exported) == {1, 2}
    summary = json.loads((tmp_path / "moments" / "summary.json").read_text())
    assert summary["1"]["tokens"] == exported[1].count > 0

    def no_fitting(*args: object, **kwargs: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("romexp.stats.covariance.fit", no_fitting)
    edit = [*tiny, *fitting, "editor.mom2_adjustment=true", "dataset.limit=1"]
    assert romexp(*edit, "output_dir=edit").status == 0
    again = romexp(*edit, "editor.layer=0", "output_dir=other")
    assert (again.status, "fitted again" in again.err) == (1, True)


def test_the_world_can_be_made_again(romexp: Command, tmp_path: Path) -> None:
    small = [
        "task.trainer.training.steps=3",
        "task.trainer.first_steps=1",
        "task.trainer.world.people=20",
        "task.trainer.world.buildings=12",
        "task.trainer.world.devices=12",
        "task.trainer.shape.layers=2",
        "task.trainer.sizes.counterfact=5",
        "task.trainer.sizes.zsre=5",
        "task.trainer.sizes.known=5",
        "task.trainer.sizes.corpus=50",
    ]
    done = romexp("task=train_minifact", *small, "tracker=none", "output_dir=world", f"cache_dir={tmp_path}/cache")
    assert done.status == 0, done.err
    assets = tmp_path / "world" / "assets"
    lm = PretrainedModel(path=str(assets / "model"), device="cpu").load()
    assert lm.n_layers == 2
    assert set(load_moments(assets / "second_moments.safetensors")) == {0, 1}
    assert len(json.loads((assets / "counterfact.json").read_text())) == 5
    assert (tmp_path / "world" / "status").read_text().strip() == "done"
