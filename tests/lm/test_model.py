"""Loading: from a folder, in the type that was asked for, with one line for each thing that can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from romexp.errors import ConfigError
from romexp.lm.apply_delta import applied
from romexp.lm.architecture import GPT2
from romexp.lm.model import LanguageModel, PretrainedModel, prepare, resolve_device
from romexp.lm.weight_delta import LowRank, WeightDelta


def save(lm: LanguageModel, folder: Path) -> Path:
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path | str, **fields: object) -> LanguageModel:
    return PretrainedModel(path=folder, **{"device": "cpu", **fields}).load()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: LanguageModel) -> Path:
    return save(tiny_gpt2, tmp_path_factory.mktemp("models") / "some-gpt2")


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy of the folder to damage."""
    return shutil.copytree(saved, tmp_path / "copy")


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def logits(lm: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([[5, 6, 300, 7]])).logits


class TestLoading:
    def test_every_family_from_its_folder(self, tiny_lm: LanguageModel, tmp_path: Path) -> None:
        lm = load(save(tiny_lm, tmp_path / "folder"))
        assert torch.equal(logits(lm), logits(tiny_lm))
        assert lm.architecture == tiny_lm.architecture
        assert (lm.n_layers, lm.hidden_size, lm.max_positions) == (4, 32, 128)
        assert lm.name == "folder"
        text = "Steve Jobs plays the violin in Zürich."
        assert lm.tokenizer(text)["input_ids"] == tiny_lm.tokenizer(text)["input_ids"]

    def test_frozen_and_in_evaluation_mode(self, saved: Path) -> None:
        lm = load(saved)
        assert not lm.model.training
        assert not any(p.requires_grad for p in lm.model.parameters())

    def test_dtype_is_the_configs_not_the_checkpoints(
        self, tiny_factory: Callable[..., LanguageModel], tmp_path: Path
    ) -> None:
        folder = save(tiny_factory("gpt2", dtype=torch.bfloat16), tmp_path / "half")
        assert load(folder).dtype == torch.float32
        assert load(folder, dtype="bfloat16").dtype == torch.bfloat16

    def test_names(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert load(saved, name="mine").name == "mine"
        monkeypatch.chdir(saved)
        assert load(Path(".")).name == "some-gpt2"

    def test_home_folder(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(saved.parent))
        assert load("~/some-gpt2").name == "some-gpt2"

    def test_attention_implementation(self, saved: Path) -> None:
        eager, sdpa = load(saved, attn_implementation="eager"), load(saved)
        assert eager.model.config._attn_implementation == "eager"
        assert sdpa.model.config._attn_implementation == "sdpa"
        torch.testing.assert_close(logits(eager), logits(sdpa), atol=1e-4, rtol=1e-4)

    def test_an_architecture_from_the_config_is_used(self, copy: Path) -> None:
        own = replace(GPT2, family="mine")
        assert load(copy, architecture=own).architecture is own
        with pytest.raises(ConfigError, match=r"model\.architecture\.mlp"):
            load(copy, architecture=replace(GPT2, mlp="ffn"))

    def test_device_map(self, saved: Path) -> None:
        pytest.importorskip("accelerate", reason="device_map needs accelerate")
        lm = load(saved, device_map={"": "cpu"}, device="nonsense, which device_map overrides")
        assert lm.device == torch.device("cpu")


class TestPadToken:
    def test_end_of_text_stands_in(self, saved: Path) -> None:
        lm = load(saved)
        assert lm.tokenizer.pad_token_id == lm.tokenizer.eos_token_id == 0

    def test_an_own_one_is_kept(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("gpt2")
        lm.tokenizer.pad_token = "a"
        again = prepare(lm.model, lm.tokenizer, architecture=lm.architecture, name="x")
        assert again.tokenizer.pad_token == "a"

    def test_without_either_the_first_token_serves(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("gpt2")
        lm.tokenizer.pad_token = lm.tokenizer.eos_token = None
        again = prepare(lm.model, lm.tokenizer, architecture=lm.architecture, name="x")
        assert again.tokenizer.pad_token_id == 0


class TestDigest:
    def test_the_same_wherever_it_lies_and_whatever_was_tokenized(self, saved: Path, copy: Path) -> None:
        one, two = load(saved), load(copy, name="other")
        two.tokenizer(["a", "longer text"], padding=True, truncation=True, max_length=3)
        assert one.digest == two.digest
        assert len(one.digest) == 16

    def test_changes_with_one_weight(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        one, two = tiny_factory("llama"), tiny_factory("llama")
        with torch.no_grad():
            two.parameter("model.norm.weight")[3] += 1e-6
        assert one.digest == tiny_factory("llama").digest != two.digest

    def test_changes_with_config_tokenizer_and_dtype(
        self, tiny_factory: Callable[..., LanguageModel], saved: Path, copy: Path
    ) -> None:
        plain = load(saved).digest
        edit_json(copy / "config.json", scale_attn_by_inverse_layer_idx=True)
        digests = {
            plain,
            load(copy).digest,
            load(saved, dtype="bfloat16").digest,
            tiny_factory("llama").digest,
            tiny_factory("llama", bos=True).digest,
        }
        assert len(digests) == 5

    def test_the_same_after_an_edit_was_taken_back(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm, name = tiny_factory("gpt2"), "transformer.h.1.mlp.c_proj.weight"
        before = lm.digest
        delta = WeightDelta(terms={name: LowRank(left=torch.randn(64, 1), right=torch.randn(32, 1))})
        with applied(lm, delta):
            assert replace(lm).digest != before  # a fresh value, so that the digest is taken anew
        assert replace(lm).digest == before


class TestErrors:
    """Each is one line that names the field of the config."""

    def failure(self, path: Path | str, **fields: object) -> str:
        with pytest.raises(ConfigError) as caught:
            load(path, **fields)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("path", ["/no/such/folder", "./nothing", "~/nothing"])
    def test_no_folder(self, path: str) -> None:
        assert self.failure(path).startswith("model.path: there is no folder")

    def test_no_such_name_on_the_hub(self) -> None:
        assert "cannot load 'nobody/nothing'" in self.failure("nobody/nothing")

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        assert f"cannot load {str(tmp_path)!r}" in self.failure(tmp_path)

    def test_no_weights(self, copy: Path) -> None:
        (copy / "model.safetensors").unlink()
        assert "model.safetensors" in self.failure(copy)

    def test_torn_weights(self, copy: Path) -> None:
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
        assert self.failure(copy).startswith("model.path: cannot load")

    def test_weights_of_a_smaller_model_are_not_filled_up_at_random(self, copy: Path) -> None:
        edit_json(copy / "config.json", n_layer=6)
        assert "its weights lack 24 tensors, such as transformer.h.4." in self.failure(copy)

    def test_weights_of_another_width(self, copy: Path) -> None:
        edit_json(copy / "config.json", n_inner=16)
        assert self.failure(copy).startswith("model.path: cannot load")

    def test_no_tokenizer(self, copy: Path) -> None:
        for file in copy.glob("tokenizer*"):
            file.unlink()
        assert "it has no tokenizer files" in self.failure(copy)

    def test_torn_tokenizer_and_config(self, copy: Path) -> None:
        (copy / "tokenizer.json").write_text("{")
        assert self.failure(copy).startswith("model.path: cannot load")
        (copy / "config.json").write_text("{")
        assert "config.json" in self.failure(copy)

    def test_unknown_family(self, copy: Path) -> None:
        edit_json(copy / "config.json", model_type="opt")
        assert "no architecture row for model_type 'opt'" in self.failure(copy)

    @pytest.mark.parametrize("dtype", ["float3", "int32", "nn", ""])
    def test_dtype(self, saved: Path, dtype: str) -> None:
        assert self.failure(saved, dtype=dtype).startswith(f"model.dtype: {dtype!r} is not a torch float type")

    def test_attention_that_cannot_take_our_masks(self, saved: Path) -> None:
        assert "model.attn_implementation" in self.failure(saved, attn_implementation="flash_attention_2")

    @pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
    def test_device(self, saved: Path, device: str) -> None:
        assert self.failure(saved, device=device).startswith(f"model.device: cannot use {device!r} here")


def test_auto_is_a_device_that_works() -> None:
    assert torch.ones(1, device=resolve_device("auto")).item() == 1
