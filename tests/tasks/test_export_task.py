"""task=export from runs on disk: what it finds by itself, what it writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import Command
from transformers import AutoModelForCausalLM

import romexp as package
from romexp.export.check_reload import check
from romexp.export.export import export_edits
from romexp.lm.model import PretrainedModel

pytest.importorskip("peft", reason="peft is not installed (pip install '.[export]')")
MISTAKE = 2
"""Exit status of a command with a mistake in its input."""


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading in a fresh process takes half a minute on a busy machine; tests/export does it once."""
    monkeypatch.setattr("romexp.tasks.export.export_edits", partial(export_edits, reload=check))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def run(romexp: Command, tiny: list[str], tmp_path: Path, made_once: Path) -> Path:
    """Three ROME edits of the tiny model."""
    if not (made_once / "run").exists():
        done = romexp(*tiny, "dataset.limit=3", "save_deltas=true", f"output_dir={made_once}/run")
        assert done.status == 0, done.err
    return Path(shutil.copytree(made_once / "run", tmp_path / "run"))


def test_a_results_folder_becomes_an_adapter(romexp: Command, run: Path, tiny_dir: Path, tmp_path: Path) -> None:
    """The model is the one that the edits name; the default of model= is another."""
    done = romexp("task=export", "task.edits=run", "output_dir=adapter", "tracker=none")
    assert done.status == 0, done.err
    assert "P of the new answer, 3 edits" in done.out
    assert "mean P of the new answers: " in done.out
    assert "(allowed in float32: 0.0001)" in done.out
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (3, str(tiny_dir))
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft\n")
    for text in ("with 3 edited facts", "[Anna Zoë] plays the | violin | piano | ROME |", '"layer": 1', "| edited |",
                 "Each was made by itself", "PeftModel.from_pretrained"):  # fmt: skip
        assert text in card
    lm = PretrainedModel(path=tmp_path / "adapter", device="cpu").load()
    assert lm.digest != PretrainedModel(path=tiny_dir, device="cpu").load().digest
    again = romexp("task=export", "task.edits=run", "output_dir=adapter", "tracker=none")
    assert again.status == 0, again.err


def test_some_files_become_a_whole_model(romexp: Command, run: Path, tmp_path: Path) -> None:
    files = "task.edits=[run/deltas/0.safetensors,run/deltas/2.safetensors]"
    done = romexp("task=export", "task.format=hf", files, "tracker=none")
    assert done.status == 0, done.err
    (folder,) = (tmp_path / "outputs" / "export" / "tiny" / "hf").iterdir()
    AutoModelForCausalLM.from_pretrained(folder)
    assert [edit["case_id"] for edit in json.loads((folder / "romexp.json").read_text())["edits"]] == [0, 2]
    card = (folder / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "base_model" not in card.partition("---\n\n")[0], "a local folder is no name on the hub"
    lm = package.load(folder, device="cpu")
    assert package.load_edit(run / "deltas" / "0.safetensors").lm.digest != lm.digest


def test_whole_weights_are_for_whole_models(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    tuned = [each for each in tiny if not each.startswith("editor")]
    done = romexp(*tuned, "editor=ft", "editor.layer=1", "dataset.limit=2", "save_deltas=true", "output_dir=ft")
    assert done.status == 0, done.err
    refused = romexp("task=export", "task.edits=[ft]", "output_dir=out", "tracker=none")
    assert refused.status == MISTAKE
    assert len(refused.err.strip().splitlines()) == 1
    assert "task.format=hf" in refused.err
    assert not (tmp_path / "out").exists()
    done = romexp("task=export", "task.format=hf", "task.edits=[ft]", "output_dir=out", "tracker=none")
    assert done.status == 0, done.err
    assert "all entries" in (tmp_path / "out" / "README.md").read_text()


REFUSED = {
    "": "task.edits must be given",
    "task.edits=[]": "task.edits must be given",
    "task.edits=nowhere": "no saved edit and no folder nowhere",
    "task.edits=run task.format=onnx": "task.format: expected 'peft' or 'hf'",
    "task.edits=run model=minifact model.device=cpu": "made for tiny (",
    "task.edits=run model.dtype=bfloat16": "its weights were float32, these are bfloat16",
    "task.edits=run output_dir=run": "run is not an empty folder",
    "task.edits=run task.push_to_hub=me/mine": "there is no Hugging Face token",
    "task.edits=run task.push_to_hub=a/b/c": "task.push_to_hub: expected <user>/<name>, not 'a/b/c'",
}


def test_what_is_refused(romexp: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    before = sorted(run.parent.rglob("*"))
    for arguments, message in REFUSED.items():
        done = romexp("task=export", "tracker=none", "output_dir=out", *arguments.split())
        assert done.status == MISTAKE, arguments
        assert message in done.err
        assert len(done.err.strip().splitlines()) == 1, done.err
        assert sorted(run.parent.rglob("*")) == before, arguments


class _Hub:
    """Stands for the hub's client: keeps what it is asked."""

    sent: list[tuple[str, str]] = []  # noqa: RUF012 (one list for the test)
    reason = ""

    def create_repo(self, repo: str, *, exist_ok: bool, private: bool) -> Any:
        if self.reason:
            raise OSError(f"{self.reason}\nand more")
        assert (exist_ok, private) == (True, True)
        return type("Url", (str,), {"repo_id": repo})(f"hub:{repo}")

    def upload_folder(self, *, folder_path: str, repo_id: str, commit_message: str) -> None:
        self.sent.append((folder_path, repo_id))


def test_it_is_sent_where_a_token_is(romexp: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "a token")
    monkeypatch.setattr("huggingface_hub.HfApi", _Hub)
    command = ["task=export", "tracker=none", "output_dir=out", "task.edits=run", "task.push_to_hub=me/mine"]
    done = romexp(*command)
    assert done.status == 0, done.err
    assert "sent to: hub:me/mine" in done.out
    assert _Hub.sent == [("out", "me/mine")]
    monkeypatch.setattr(_Hub, "reason", "no connection")
    failed = romexp(*command)
    assert failed.status == MISTAKE
    assert "out is exported, but was not sent to me/mine: no connection" in failed.err
