"""task=train: a small run from the command line, what it leaves behind, and that its network edits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from live_points import metrics
from safetensors.torch import load_file
from tiny_runs import Command, record

from romexp.editors.learned import checkpoint
from romexp.learning.session import Session
from romexp.results.folder import RunFolder
from romexp.results.rows import Curves

SMALL = {
    "mend": ["editor=mend", "editor.rank=4", "editor.n_layers=2", "editor.edit_lr=0.01"],
    "ke": ["editor=ke", "editor.hidden_size=6", "editor.condition_size=5", "editor.n_layers=2"],
}
SETTINGS = [
    "task.edits.validation=0.3",
    "task.locality.corpus.unit=line",
    "task.locality.max_tokens=12",
    "task.locality.neighbors=0.5",
    "task.training.cedit=1.0",
    "task.training.lr=0.01",
    "task.training.lr_lr=0.01",
    "task.training.steps=8",
    "task.training.edits_per_step=2",
    "task.training.accumulate=2",
    "task.training.validate_every=4",
    "task.training.log_every=2",
]


@pytest.fixture
def small(tiny: list[str], tmp_path: Path) -> list[str]:
    """Overrides for a training run of seconds on the tiny model."""
    (tmp_path / "text.txt").write_text("".join(f"Anna and Bob play the piano in Paris {i}.\n" for i in range(20)))
    records = tmp_path / "records.json"
    records.write_text(json.dumps([record(i) for i in range(8)]))
    model = [given for given in tiny if given.startswith(("model", "tracker", "cache_dir"))]
    data = ["dataset=counterfact", f"dataset.path={records}", f"task.locality.corpus.path={tmp_path}/text.txt"]
    return ["task=train", *model, *data, *SETTINGS]


def validations(folder: Path) -> list[dict[str, float]]:
    return [row for row in Curves(folder / "curves.jsonl").rows() if "validation/total_loss" in row]


@pytest.mark.parametrize("kind", ["mend", "ke"])
def test_a_trained_network_edits(romexp: Command, small: list[str], tiny: list[str], tmp_path: Path, kind: str) -> None:
    reported = [each for each in small if each != "tracker=none"]
    done = romexp(*reported, *SMALL[kind], "tracker=csv", "output_dir=run")
    assert done.status == 0, done.err
    assert "editor.checkpoint=run/network.safetensors" in done.out
    folder = tmp_path / "run"
    rows = validations(folder)
    assert [row["step"] for row in rows] == [1, 4, 8]
    shown = metrics(folder).dropna(subset="validation/total_loss")
    assert shown["step"].tolist() == [1, 4, 8]
    assert shown["validation/total_loss"].tolist() == [row["validation/total_loss"] for row in rows]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["first"]["total_loss"] == rows[0]["validation/total_loss"]
    assert summary["best"]["total_loss"] == min(row["validation/total_loss"] for row in rows)
    assert summary["best"]["total_loss"] < summary["first"]["total_loss"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["edits"]["training"] + manifest["edits"]["validation"] == 8
    assert manifest["names"] == {"task": "train", "model": "tiny", "dataset": "counterfact", "editor": kind}
    assert checkpoint.read(folder / "network.safetensors")[0]["training"]["command"].startswith("romexp task=train")
    assert not (folder / "training_state.safetensors").exists()

    edit = [given for given in tiny if not given.startswith("editor")]
    use = [f"editor={kind}", f"editor.checkpoint={folder / 'network.safetensors'}", "dataset.limit=2"]
    edited = romexp(*edit, *use, "output_dir=edit")
    assert edited.status == 0, edited.err
    (row, *_) = [json.loads(line) for line in (tmp_path / "edit" / "cases.jsonl").read_text().splitlines()]
    assert row["edit"]["norm"] > 0
    assert row["post"]["rewrite_prompts"] != row["pre"]["rewrite_prompts"]


@pytest.mark.parametrize("kind", ["mend", "ke"])
def test_a_killed_run_ends_with_the_same_network(
    romexp: Command, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    arguments = [*small, *SMALL[kind]]
    assert romexp(*arguments, "output_dir=whole").status == 0
    step = Session.step

    def killed(self: Session) -> dict[str, float]:
        if self.progress.step == 7:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Session, "step", killed)
    assert romexp(*arguments, "output_dir=killed").status == 130
    assert (tmp_path / "killed" / "training_state.safetensors").exists()
    assert [row["step"] for row in Curves(tmp_path / "killed" / "curves.jsonl").rows()] == [1, 2, 4, 4, 6]
    monkeypatch.setattr(Session, "step", step)
    assert romexp(*arguments, "output_dir=killed").status == 0

    networks = [load_file(tmp_path / name / "network.safetensors") for name in ("killed", "whole")]
    assert networks[0].keys() == networks[1].keys()
    for name, tensor in networks[0].items():
        torch.testing.assert_close(tensor, networks[1][name], rtol=0, atol=0, msg=name)
    curves = [Curves(tmp_path / name / "curves.jsonl").rows() for name in ("killed", "whole")]
    assert curves[0] == curves[1]
    assert "finished before" in romexp(*arguments, "output_dir=killed").err


def test_half_the_space(romexp: Command, small: list[str], tmp_path: Path) -> None:
    """Weights in half precision, statistics whole."""
    assert romexp(*small, *SMALL["mend"], "task.training.steps=1", "task.dtype=float16", "output_dir=run").status == 0
    tensors = load_file(tmp_path / "run" / "network.safetensors")
    halves = {name for name, tensor in tensors.items() if tensor.dtype == torch.float16}
    assert {name for name in tensors if name.endswith(("mean", "squares", "count"))}.isdisjoint(halves)
    assert "edit_lrs" in halves
    assert all(parameter.dtype == torch.float32 for parameter in network_of(tmp_path / "run").parameters())


def network_of(folder: Path):  # type: ignore[no-untyped-def]
    return checkpoint.load(folder / "network.safetensors")


def test_shared_subjects_end_it_before_anything_is_done(romexp: Command, small: list[str], tmp_path: Path) -> None:
    test = ["dataset@task.edits.test=counterfact", f"task.edits.test.path={tmp_path}/records.json"]
    done = romexp(*small, *SMALL["mend"], *test, "task.edits.test.limit=1", "output_dir=run")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "'Anna Zoë'" in done.err
    assert not (tmp_path / "run").exists()
    more = ["task.edits.test.limit=1", "task.edits.leave_out_test_subjects=true", "task.training.steps=1"]
    assert romexp(*small, *SMALL["mend"], *test, *more, "output_dir=run").status == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["edits"]["test"]["left_out"] == 1


def test_an_editor_without_a_network_cannot_be_trained(romexp: Command, small: list[str]) -> None:
    done = romexp(*small, "editor=rome")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "ROME has none" in done.err


def test_self_sampled_text_from_the_command_line(romexp: Command, small: list[str], tmp_path: Path) -> None:
    own = [
        "task/edits=self_sampled",
        f"task.edits.corpus.path={tmp_path}/text.txt",
        "task.edits.corpus.unit=line",
        "task.edits.count=6",
        "task.edits.n_tokens=2",
        "task.edits.context_tokens=[3,5]",
        "task.locality.neighbors=0",
        "task.training.steps=2",
    ]
    done = romexp(*(given for given in small if "neighbors" not in given), *SMALL["mend"], *own, "output_dir=run")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["edits"]["completions"]["n_tokens"] == 2
    assert RunFolder(tmp_path / "run").status == "done"


def test_curves_survive_a_torn_line(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "curves.jsonl")
    assert curves.rows() == []
    for step in (1, 2, 3):
        curves.append({"step": step, "x": step / 3})
    with curves.path.open("a") as torn:
        torn.write('{"step": 4, "x"')
    curves.cut(2)
    curves.append({"step": 3, "x": 9.0})
    assert curves.rows() == [{"step": 1, "x": 1 / 3}, {"step": 2, "x": 2 / 3}, {"step": 3, "x": 9.0}]
