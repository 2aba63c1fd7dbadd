"""A model's digest is computed once for the same files, and anew when they change."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest
from conftest import make_tiny
from gguf_cases import write_gguf

from romexp.lm.kept_digest import load_with_digest
from romexp.lm.model import LanguageModel, PretrainedModel


@pytest.fixture
def model(tiny_dir: Path, tmp_path: Path) -> PretrainedModel:
    return PretrainedModel(path=str(shutil.copytree(tiny_dir, tmp_path / "tiny")), device="cpu")


def flip_weight(model: PretrainedModel) -> None:
    """Change a weight; size and the time of change stay."""
    file = Path(model.path) / "model.safetensors"
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_the_same_files_are_hashed_once(
    model: PretrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = load_with_digest(model, tmp_path / "digests").digest
    assert digest == model.load().digest, "the control: what is kept is the digest itself"

    monkeypatch.setattr("romexp.lm.model._NOT_THE_MODEL", None)  # whoever computes a digest fails
    assert load_with_digest(model, tmp_path / "digests").digest == digest
    with pytest.raises(TypeError):
        _ = model.load().digest


def test_other_weights_have_another_digest(model: PretrainedModel, tmp_path: Path) -> None:
    digest = load_with_digest(model, tmp_path / "digests").digest
    flip_weight(model)
    assert load_with_digest(model, tmp_path / "digests").digest == model.load().digest != digest


def test_a_damaged_or_unwritable_place_only_costs_time(model: PretrainedModel, tmp_path: Path) -> None:
    digest = load_with_digest(model, tmp_path / "digests").digest
    (file,) = (tmp_path / "digests").iterdir()
    for damage in ("", "[]", '{"digest": 3}', '{"digest": "../x"}'):
        file.write_text(damage)
        assert load_with_digest(model, tmp_path / "digests").digest == digest
    (tmp_path / "a file").write_text("")
    assert load_with_digest(model, tmp_path / "a file").digest == digest


def test_types_of_weights_are_kept_apart(model: PretrainedModel, tmp_path: Path) -> None:
    first = load_with_digest(model, tmp_path / "digests").digest
    assert load_with_digest(replace(model, dtype="float64"), tmp_path / "digests").digest != first


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of models whose weights are hashed from now on."""
    names: list[str] = []
    original = LanguageModel.__dict__["digest"].func

    def digest(lm: LanguageModel) -> str:
        if lm.known_digest is None:
            names.append(lm.name)
        return str(original(lm))

    counting = cached_property(digest)
    counting.__set_name__(LanguageModel, "digest")
    monkeypatch.setattr(LanguageModel, "digest", counting)
    return names


def test_a_model_inside_a_package_is_hashed_once(
    model: PretrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packages" / "some_package").mkdir(parents=True)
    shutil.copytree(model.path, tmp_path / "packages" / "some_package" / "tiny")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    packaged, names = replace(model, path="pkg://some_package/tiny"), hashed(monkeypatch)
    for _ in range(2):
        assert load_with_digest(packaged, tmp_path / "digests").digest == load_with_digest(model, tmp_path / "d").digest
    assert names == ["tiny", "tiny"], "once for each of the two folders"


def test_a_gguf_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("gguf", "accelerate"):
        pytest.importorskip(package, reason=f"the package {package} is not installed")
    file = write_gguf(make_tiny("llama"), tmp_path / "tiny.gguf")
    model, names = PretrainedModel(path=file, device="cpu", cache_dir=tmp_path / "cache"), hashed(monkeypatch)
    first = load_with_digest(model, tmp_path / "digests").digest
    assert load_with_digest(model, tmp_path / "digests").digest == first
    assert len(names) == 1
    os.utime(file)  # the control: a file that may have changed
    assert load_with_digest(model, tmp_path / "digests").digest == first
    assert len(names) == 2
