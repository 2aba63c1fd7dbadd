"""An export is right or it is not there; what cannot be exported is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from export_cases import REQUESTS, dense_edit, found, low_rank_edits, on_disk

from romexp.errors import ConfigError, DataError
from romexp.export.check_reload import check
from romexp.export.export import export_edits
from romexp.export.gather import FoundEdit
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.lm.weight_delta import LowRank, WeightDelta

pytest.importorskip("peft", reason="peft is not installed (pip install '.[export]')")


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return on_disk(tmp_path_factory.mktemp("base") / "tiny", "gpt2")


@pytest.fixture
def edits(lm: LanguageModel) -> list[FoundEdit]:
    return low_rank_edits(lm)


def test_a_fresh_process_finds_the_same_numbers(lm: LanguageModel, edits: list[FoundEdit], tmp_path: Path) -> None:
    exported = export_edits(lm, edits, tmp_path / "adapter", format="peft")
    said = json.loads((tmp_path / "adapter" / "romexp.json").read_text())
    assert said == exported.said
    assert said["check"]["largest_difference"] < 1e-4
    assert said["check"]["tolerance"] == 1e-4
    assert set(said["check"]["libraries"]) == {"torch", "transformers", "peft"}
    assert [edit["request"]["subject"] for edit in said["edits"]] == [request.subject for request in REQUESTS]
    for edit in said["edits"]:
        p = edit["probability"]
        assert abs(p["before"] - p["alone"]) > 1e-5, "the control: each edit does something"


def test_what_is_not_the_edited_model_is_not_kept(lm: LanguageModel, edits: list[FoundEdit], tmp_path: Path) -> None:
    def transposed(request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Load the adapter after a fault in its files."""
        file = Path(request["folder"]) / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": 1}))
        return check(request)

    with pytest.raises(DataError, match=r"not the edited model: the NLL of 'Anna plays the violin' is \d"):
        export_edits(lm, edits, tmp_path / "new" / "adapter", format="peft", reload=transposed)
    assert list((tmp_path / "new").iterdir()) == []

    def without_numbers(request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**check(request), "nlls": [float("nan")] * 3}

    def other_tokens(request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**check(request), "same_tokens": False}

    with pytest.raises(DataError, match="is nan"):
        export_edits(lm, edits, tmp_path / "new" / "whole", format="hf", reload=without_numbers)
    with pytest.raises(DataError, match="its tokenizer gives other tokens"):
        export_edits(lm, edits, tmp_path / "new" / "whole", format="hf", reload=other_tokens)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_process_that_cannot_load_it_says_why(
    lm: LanguageModel, edits: list[FoundEdit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys, json\njson.load(sys.stdin)\nraise OSError('the disk is full')\n")
    monkeypatch.setattr("romexp.export.check_reload.__file__", str(script))
    with pytest.raises(DataError, match=r"a fresh process cannot load what was exported: OSError: the disk is full"):
        export_edits(lm, edits, tmp_path / "whole", format="hf")
    assert list(tmp_path.iterdir()) == [script]


def test_an_existing_folder_is_never_overwritten(lm: LanguageModel, edits: list[FoundEdit], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="mine is not an empty folder"):
        export_edits(lm, edits, tmp_path / "mine", format="peft", reload=check)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    export_edits(lm, edits, tmp_path / "empty", format="peft", reload=check)
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "empty").iterdir()}
    again = export_edits(lm, edits, tmp_path / "empty", format="peft", reload=check)
    assert again.said["check"]["largest_difference"] < 1e-4
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "empty").iterdir()} == times
    for others, format in ((edits[:1], "peft"), (edits, "hf")):
        with pytest.raises(ConfigError, match="empty holds an export of other edits"):
            export_edits(lm, others, tmp_path / "empty", format=format, reload=check)  # type: ignore[arg-type]


def test_what_an_adapter_cannot_hold(lm: LanguageModel, edits: list[FoundEdit], tmp_path: Path) -> None:
    for refused in ([dense_edit(lm)], [edits[1], dense_edit(lm)]):
        with pytest.raises(ConfigError, match=r"is a whole weight.*no LoRA adapter can hold.*format hf"):
            export_edits(lm, refused, tmp_path / "adapter", format="peft", reload=check)
    delta = dense_edit(lm).saved.delta
    bias = {name: term for name, term in delta.terms.items() if name.endswith("bias")}
    with pytest.raises(ConfigError, match=r"is a whole bias.*format hf"):
        export_edits(lm, [found(lm, 0, bias)], tmp_path / "adapter", format="peft", reload=check)
    for format in ("peft", "hf"):
        with pytest.raises(ConfigError, match="there is nothing to export"):
            export_edits(lm, [found(lm, 0, {})], tmp_path / "adapter", format=format, reload=check)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected peft or hf, not 'gguf'"):
        export_edits(lm, edits, tmp_path / "adapter", format="gguf", reload=check)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_an_edit_of_another_model_is_refused(lm: LanguageModel, edits: list[FoundEdit], tmp_path: Path) -> None:
    other = on_disk(tmp_path / "other", "llama")
    with pytest.raises(
        DataError, match=rf"^the edit of 'Anna plays the': made for tiny \({lm.digest}\), not for other"
    ):
        export_edits(other, edits, tmp_path / "whole", format="hf", reload=check)
    half = PretrainedModel(path=lm.model.config.name_or_path, device="cpu", dtype="bfloat16").load()
    with pytest.raises(DataError, match="its weights were float32, these are bfloat16"):
        export_edits(half, edits, tmp_path / "whole", format="hf", reload=check)
    saved = replace(edits[0].saved, model=replace(edits[0].saved.model, digest=""))
    with pytest.raises(DataError, match=r"not an edit of other \(the model 'other' has no parameter"):
        export_edits(other, [FoundEdit(saved=saved)], tmp_path / "whole", format="hf", reload=check)


def test_a_model_without_a_place_has_no_adapter(lm: LanguageModel, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    edits = low_rank_edits(tiny_gpt2)
    with pytest.raises(ConfigError, match=r"this model has none: save it first .*format hf"):
        export_edits(tiny_gpt2, edits, tmp_path / "adapter", format="peft", reload=check)
    export_edits(lm, low_rank_edits(lm), tmp_path / "adapter", format="peft", reload=check)
    merged = PretrainedModel(path=tmp_path / "adapter", device="cpu").load()
    with pytest.raises(ConfigError, match=r"itself a base model with the adapter .*format hf"):
        export_edits(merged, low_rank_edits(merged), tmp_path / "second", format="peft", reload=check)
    export_edits(merged, low_rank_edits(merged), tmp_path / "second", format="hf", reload=check)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_says_what_rounding_does(dtype: str, tmp_path: Path) -> None:
    lm = on_disk(tmp_path / "base", "gpt2", dtype=dtype)
    for format in ("peft", "hf"):
        exported = export_edits(lm, low_rank_edits(lm), tmp_path / format, format=format, reload=check)  # type: ignore[arg-type]
        assert exported.said["check"]["tolerance"] > 1e-3
        card = (tmp_path / format / "README.md").read_text()
        assert f"(allowed in {dtype}: " in card
        assert ("of the edit's norm" in card) == (format == "hf" and exported.said["check"]["rounding"] > 1e-3)
    assert exported.said["check"]["largest_difference"] == 0.0, "the very weights that were compared with are stored"
    tiny = {name: LowRank(left=t.left * 1e-3, right=t.right) for name, t in _terms(lm).items()}
    lost = export_edits(lm, [found(lm, 0, tiny)], tmp_path / "tiny", format="hf", reload=check)  # type: ignore[arg-type]
    assert lost.said["check"]["rounding"] > 0.3, "an edit below the weights' resolution is lost, and the card says it"


def _terms(lm: LanguageModel) -> dict[str, LowRank]:
    delta: WeightDelta = low_rank_edits(lm)[0].saved.delta
    return dict(delta.terms)  # type: ignore[arg-type]


def test_quantized_weights_are_not_written(
    lm: LanguageModel, edits: list[FoundEdit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = lm.digest
    monkeypatch.setattr(lm.model.config, "quantization_config", {"quant_method": "bitsandbytes"}, raising=False)
    assert lm.digest == digest
    with pytest.raises(ConfigError, match=r"quantized.*task\.format=peft"):
        export_edits(lm, edits, tmp_path / "whole", format="hf", reload=check)


def test_a_sharded_base_model_is_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = on_disk(tmp_path / "first", "gpt_neox")
    first.model.save_pretrained(tmp_path / "base", max_shard_size="100KB")
    first.tokenizer.save_pretrained(tmp_path / "base")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    lm = PretrainedModel(path=tmp_path / "base", device="cpu").load()
    assert lm.digest == first.digest
    for format in ("peft", "hf"):
        export_edits(lm, low_rank_edits(lm), tmp_path / format, format=format, reload=check)  # type: ignore[arg-type]


def test_a_text_that_the_model_cannot_take(lm: LanguageModel, edits: list[FoundEdit], tmp_path: Path) -> None:
    saved = replace(edits[0].saved, request=replace(REQUESTS[0], subject="Anna " * 300))
    with pytest.raises(DataError, match="sees 128 at once"):
        export_edits(lm, [FoundEdit(saved=saved)], tmp_path / "adapter", format="peft", reload=check)


def test_files_are_as_readable_as_others(lm: LanguageModel, edits: list[FoundEdit], tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    export_edits(lm, edits, tmp_path / "whole", format="hf", reload=check)
    modes = {file.stat().st_mode for file in (tmp_path / "whole").iterdir() if file.is_file()}
    assert modes == {plain.stat().st_mode}
