"""A folder with a PEFT adapter is a model: its base model with the adapter in its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_tiny

from romexp.errors import ConfigError
from romexp.lm.adapter import is_adapter
from romexp.lm.model import PretrainedModel

peft: Any = pytest.importorskip("peft", reason="peft is not installed (pip install '.[export]')")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    lm = make_tiny("gpt2")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """An adapter that peft itself has made, with an alpha that is not its rank."""
    model = PretrainedModel(path=base, device="cpu").load().model
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["mlp.c_proj"], fan_in_fan_out=True)
    adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_of_any_origin(base: Path, adapter: Path) -> None:
    lm, unedited = (PretrainedModel(path=path, device="cpu").load() for path in (adapter, base))
    ids = torch.tensor([[5, 6, 7]])
    model = peft.PeftModel.from_pretrained(PretrainedModel(path=base, device="cpu").load().model, adapter)
    with torch.no_grad():
        expected, found, plain = (m(input_ids=ids).logits for m in (model.eval(), lm.model, unedited.model))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 0.1, "the control: the adapter does something"
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert (is_adapter(adapter), is_adapter(base)) == (True, False)


def changed(adapter: Path, **values: object) -> Path:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return adapter


def test_one_line_for_each_thing_that_can_be_wrong(adapter: Path, tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(ConfigError, match=match):
            PretrainedModel(path=adapter, device="cpu").load()

    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    changed(adapter, base_model_name_or_path=None)
    refused("base_model_name_or_path names no model")
    changed(adapter, base_model_name_or_path=str(tmp_path / "gone"))
    refused(r"the base model '.*gone' is not there")
    other = make_tiny("llama")
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    changed(adapter, base_model_name_or_path=str(tmp_path / "other"))
    refused(r"cannot add this adapter to .*other: ")
    changed(adapter, base_model_name_or_path=base, target_modules=["mlp.c_fc"])
    refused(r"cannot add this adapter to .*tiny: ")
    (adapter / "adapter_config.json").write_text("{")
    refused("expected an adapter's configuration")


def test_without_peft(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match=r"peft is needed for adapters: pip install 'romexp\[export\]'"):
        PretrainedModel(path=adapter, device="cpu").load()
