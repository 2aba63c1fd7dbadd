"""`Edit.export` and `romexp.load` of what it wrote."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from face_cases import NEIGHBOR, REWORDED, SENTENCE

import romexp
from romexp.api.edits import FactEdit
from romexp.api.models import LoadedModel
from romexp.errors import ConfigError
from romexp.export.check_reload import check
from romexp.export.export import export_edits

pytest.importorskip("peft", reason="peft is not installed (pip install '.[export]')")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading in a fresh process takes half a minute on a busy machine; tests/export does it once."""
    monkeypatch.setattr("romexp.api.edits.export_edits", partial(export_edits, reload=check))


@pytest.mark.parametrize("format", ["peft", "hf"])
def test_what_is_exported_is_the_edited_model(
    face_lm: LoadedModel, face_edit: FactEdit, tmp_path: Path, format: str
) -> None:
    folder = face_edit.export(tmp_path / "cello", format)  # type: ignore[arg-type]
    assert folder == tmp_path / "cello"
    lm = romexp.load(folder, device="cpu")
    assert lm.name == "cello"
    assert lm.generate(REWORDED, 1) == face_edit.generate(REWORDED, 1) != face_lm.generate(REWORDED, 1)
    assert lm.generate(NEIGHBOR, 5) == face_lm.generate(NEIGHBOR, 5)
    probabilities = lm.next_tokens(SENTENCE)["probability"]
    assert probabilities[0] == pytest.approx(face_edit.probabilities[1], abs=1e-4)
    card = (folder / "README.md").read_text()
    for text in ("# minifact with one edited fact", "[Selus Dunwood] plays the | cello | – | ROME", '"layer": 2'):
        assert text in card


def test_fine_tuning_makes_no_adapter(face_lm: LoadedModel, tmp_path: Path) -> None:
    found = romexp.edit(face_lm, "{} plays the", subject="Selus Dunwood", target="cello", method="ft")
    with pytest.raises(ConfigError, match=r"no LoRA adapter can hold.*format hf"):
        found.export(tmp_path / "cello")
    assert list(tmp_path.iterdir()) == []
    lm = romexp.load(found.export(tmp_path / "cello", "hf"), device="cpu")
    assert lm.next_tokens(SENTENCE)["probability"][0] == pytest.approx(found.probabilities[1], abs=1e-4)
