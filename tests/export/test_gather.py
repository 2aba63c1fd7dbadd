"""Saved edits are found in files and results folders, with what their runs say about them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from romexp.errors import ConfigError, DataError
from romexp.export.gather import common_origin, gather_edits
from romexp.facts import EditRequest
from romexp.lm.saved_edit import ModelOrigin, SavedEdit
from romexp.lm.weight_delta import LowRank, WeightDelta
from romexp.results.rows import CaseResult

DELTA = WeightDelta(terms={"h.0.weight": LowRank(left=torch.ones(3, 1), right=torch.ones(2, 1))})
ORIGIN = ModelOrigin(name="tiny", digest="0123", source="/models/tiny", revision="v2", dtype="bfloat16")


def edit(case_id: int, *, model: ModelOrigin = ORIGIN) -> SavedEdit:
    request = EditRequest(subject=f"Anna {case_id}", prompt="{} plays the", target_new="violin")
    return SavedEdit(delta=DELTA, request=request, method="ROME", model=model, case_id=case_id)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """A results folder with the deltas of cases 2 and 10, as today or as in older versions."""

    def make(name: str, *, old: bool) -> Path:
        folder = tmp_path / name
        for case_id in (10, 2):
            file = folder / "deltas" / f"{case_id}.safetensors"
            if old:
                DELTA.save(file, metadata={"case_id": case_id, **asdict(edit(case_id).request)})
            else:
                edit(case_id).save(file)
        manifest = {
            "model": {"name": "tiny", "digest": "0123", "dtype": "torch.bfloat16", "device": "cpu"},
            "editor_label": "FT",
            "identity": {"task": "edit", "editor": {"type": "FineTune", "lr": 0.1}},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "config.yaml").write_text("model:\n  path: /models/tiny\n  revision: v2\n  device: auto\n")
        row = CaseResult(case_id=2, request=edit(2).request, after={"rewrite_prompts": [[0.1, 2.0]]}).to_json()
        (folder / "cases.jsonl").write_text(json.dumps(row) + "\n")
        return folder

    return make


def test_a_file_says_all_that_it_was_told(tmp_path: Path) -> None:
    saved = replace(edit(4), settings={"layer": 3})
    saved.save(tmp_path / "4.safetensors")
    (again,) = gather_edits([tmp_path / "4.safetensors"])
    same = ("request", "method", "settings", "model", "case_id")
    assert [getattr(again.saved, name) for name in same] == [getattr(saved, name) for name in same]
    torch.testing.assert_close(again.saved.delta.terms["h.0.weight"].dense(), torch.ones(3, 2))
    assert again.result is None


@pytest.mark.parametrize("old", [False, True])
def test_a_results_folder_stands_for_its_edits(run: Callable[..., Path], old: bool) -> None:
    """In order of the cases. The run says what files of an older version do not: method, model, settings."""
    folder = run("run", old=old)
    found = gather_edits([folder])
    assert [each.saved.case_id for each in found] == [2, 10]
    assert {each.saved.model for each in found} == {ORIGIN}
    assert {each.saved.method for each in found} == {"FT" if old else "ROME"}, "the file itself comes first"
    assert found[0].saved.settings == {"type": "FineTune", "lr": 0.1}
    assert found[0].result is not None
    assert found[0].result.after == {"rewrite_prompts": [[0.1, 2.0]]}
    assert found[1].result is None, "the case has no row"
    (alone,) = gather_edits([folder / "deltas" / "2.safetensors"])
    assert alone.saved.model == ORIGIN
    assert alone.result is not None


def test_what_is_named_twice_is_taken_once(run: Callable[..., Path]) -> None:
    folder = run("run", old=False)
    assert len(gather_edits([folder, folder / "deltas" / "2.safetensors", folder / "deltas"])) == 2


def test_two_edits_of_one_prompt_are_refused(run: Callable[..., Path], tmp_path: Path) -> None:
    folder = run("run", old=False)
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(DataError, match=r"two edits of 'Anna 2 plays the': .*run/deltas/2.* and .*copy/deltas/2"):
        gather_edits([folder, tmp_path / "copy"])


def test_edits_are_of_one_model(tmp_path: Path) -> None:
    edit(1).save(tmp_path / "a.safetensors")
    edit(2, model=replace(ORIGIN, name="other", digest="4567")).save(tmp_path / "b.safetensors")
    edit(3, model=ModelOrigin()).save(tmp_path / "c.safetensors")
    found = gather_edits([tmp_path])
    with pytest.raises(ConfigError, match=r"edits of two models: .*a.safetensors is for tiny \(0123\), .*other"):
        common_origin(found)
    assert common_origin([found[2], found[0]]) == ORIGIN, "an edit that does not say its model may be of any"
    assert common_origin(found[2:]) == ModelOrigin()


def test_what_holds_no_edits(tmp_path: Path, run: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="no saved edit and no folder"):
        gather_edits([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no saved edits there .*save_deltas=true"):
        gather_edits([tmp_path / "empty"])
    DELTA.save(tmp_path / "bare.safetensors")
    with pytest.raises(DataError, match=r"bare.safetensors: holds a delta, but not the fact that it is about"):
        gather_edits([tmp_path / "bare.safetensors"])
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(DataError, match=r"text.safetensors: not a safetensors file"):
        gather_edits([tmp_path / "text.safetensors"])
    folder = run("run", old=True)
    (folder / "config.yaml").write_text("model: [")
    with pytest.raises(DataError, match=r"config.yaml: not a stored configuration"):
        gather_edits([folder])
