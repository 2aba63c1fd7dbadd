"""The Python face raises the same one-line errors as the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_tiny

import romexp
from romexp.errors import ConfigError


@pytest.fixture
def folder(tiny_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_dir, tmp_path / "model")


def refusal(*arguments: object, **settings: object) -> str:
    with pytest.raises(ConfigError) as refused:
        romexp.load(*arguments, device="cpu", **settings)  # type: ignore[call-overload]
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_folder(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "New"}}')
    assert f"cannot load {str(folder)!r}: tokenizer: " in refusal(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    assert "its weights are quantized (gptq)" in refusal(folder)


def test_a_model_object() -> None:
    lm = make_tiny("llama")
    lm.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    loaded = romexp.load(lm.model, lm.tokenizer)
    assert loaded.tokenizer.pad_token_id == 0
    assert loaded.generate(["Paris", "The Space Needle is"], 3)
    lm.model.config.quantization_config = {"quant_method": "bitsandbytes"}
    assert "its weights are quantized (bitsandbytes)" in refusal(lm.model, lm.tokenizer)


def test_a_name_that_the_hub_does_not_have() -> None:
    assert "HF_HUB_OFFLINE is set; set model.path to a local folder" in refusal("nobody/nothing")


def test_a_token_that_the_model_does_not_have() -> None:
    lm = make_tiny("llama")
    lm.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    loaded = romexp.load(lm.model, lm.tokenizer)
    with pytest.raises(romexp.errors.RecordError, match=r"token '\[PAD\]'"):
        loaded.next_tokens("Paris [PAD]")


def test_each_model_computes_with_its_own_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make_tiny("gpt2")
    medium = romexp.load(lm.model, lm.tokenizer, matmul_precision="medium")
    usual = romexp.load(lm.model, lm.tokenizer)
    seen: list[str] = []
    lm.model.base_model.register_forward_pre_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    for model in (medium, usual, medium):
        model.next_tokens("Paris")
        model.generate("Paris", 1)
    assert [seen[0], seen[-1]] == ["medium", "medium"]
    assert set(seen[len(seen) // 3 : 2 * len(seen) // 3]) == {"highest"}
    assert torch.get_float32_matmul_precision() == "highest"
    assert "matmul_precision: 'low' is none of" in refusal(lm.model, lm.tokenizer, matmul_precision="low")
