"""Adapters and whole models, loaded by plain transformers and peft, give the logits of the edited model: by family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FAMILIES
from export_cases import RANKS, dense_edit, logits_of, low_rank_edits, on_disk
from transformers import AutoModelForCausalLM

from romexp.export.check_reload import check
from romexp.export.export import export_edits
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.lm.weight_delta import WeightDelta, total

peft: Any = pytest.importorskip("peft", reason="peft is not installed (pip install '.[export]')")
CLOSE = {"atol": 2e-4, "rtol": 2e-4}


@pytest.fixture(scope="module", params=[*FAMILIES, "falcon", "phi3"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return on_disk(tmp_path_factory.mktemp("base") / request.param, request.param, bos=request.param == "llama")


def edited_logits(lm: LanguageModel, delta: WeightDelta) -> torch.Tensor:
    """The reference; it is far from what the model gives unedited, so that a test cannot pass by doing nothing."""
    with applied(lm, delta):
        edited = logits_of(lm.model, lm)
    assert (edited - logits_of(lm.model, lm)).abs().max() > 0.1
    return edited


def plain(path: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def test_an_adapter_is_the_sum_of_its_edits(lm: LanguageModel, tmp_path: Path, guard: Any) -> None:
    guard(lm)
    edits = low_rank_edits(lm)
    expected = edited_logits(lm, total([edit.saved.delta for edit in edits]))
    export_edits(lm, edits, tmp_path / "adapter", format="peft", reload=check)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    base = config["base_model_name_or_path"]
    assert base == str(Path(lm.model.config.name_or_path).resolve())
    assert config["r"] == config["lora_alpha"] == RANKS[0] + RANKS[1]
    assert config["fan_in_fan_out"] == (lm.architecture.weight_layout == "in_out")
    model = peft.PeftModel.from_pretrained(plain(base), tmp_path / "adapter")
    torch.testing.assert_close(logits_of(model, lm), expected, **CLOSE)
    with model.disable_adapter():
        torch.testing.assert_close(logits_of(model, lm), logits_of(lm.model, lm), **CLOSE)
    torch.testing.assert_close(logits_of(model.merge_and_unload(), lm), expected, **CLOSE)


def test_an_adapter_is_loaded_as_its_base_with_the_edits(lm: LanguageModel, tmp_path: Path) -> None:
    edits = low_rank_edits(lm)
    expected = edited_logits(lm, total([edit.saved.delta for edit in edits]))
    export_edits(lm, edits, tmp_path / "adapter", format="peft", reload=check)
    again = PretrainedModel(path=tmp_path / "adapter", device="cpu").load()
    assert again.name == "adapter"
    assert again.digest != lm.digest
    torch.testing.assert_close(logits_of(again.model, lm), expected, **CLOSE)


def test_a_whole_model_holds_every_kind_of_edit(lm: LanguageModel, tmp_path: Path, guard: Any) -> None:
    """Whole weights with their biases, and a low-rank edit of the same weight beside them."""
    guard(lm)
    edits = [dense_edit(lm), *low_rank_edits(lm)[1:]]
    expected = edited_logits(lm, total([edit.saved.delta for edit in edits]))
    export_edits(lm, edits, tmp_path / "whole", format="hf", reload=check)
    torch.testing.assert_close(logits_of(plain(tmp_path / "whole"), lm), expected, **CLOSE)
    again = PretrainedModel(path=tmp_path / "whole", device="cpu").load()
    assert again.tokenizer("Anna plays")["input_ids"] == lm.tokenizer("Anna plays")["input_ids"]
