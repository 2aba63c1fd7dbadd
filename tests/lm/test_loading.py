"""Whatever is wrong with a model or its tokenizer ends in one line that names the folder; what can be had right, is."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import make_tiny

from romexp.errors import ConfigError, DataError
from romexp.lm.loading import refuse_quantized_tensors
from romexp.lm.model import LanguageModel, PretrainedModel, prepare


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    lm = make_tiny("llama")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "copy")


def edit(file: Path, **changes: object) -> None:
    """Change entries of a JSON file; None removes one."""
    found = (json.loads(file.read_text()) if file.is_file() else {}) | changes
    file.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def load(folder: Path | str) -> LanguageModel:
    return PretrainedModel(path=str(folder), device="cpu").load()


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load(folder)
    message = str(refused.value)
    assert message.startswith(f"model.path: cannot load {str(folder)!r}: ")
    assert "\n" not in message
    return message


def logits(lm: LanguageModel) -> torch.Tensor:
    return lm.model(input_ids=torch.tensor([[5, 6, 300, 7]])).logits.detach()


QUANTIZED: dict[str, dict[str, object]] = {
    "bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    "compressed-tensors": {"quantization_config": {"quant_method": "compressed-tensors"}},
    "packed": {"compression_config": {"quant_method": "packed"}},
    "fp8": {"quantization_config": {"quant_method": "fp8"}},
    "a method of tomorrow": {"quantization_config": {"quant_method": "a method of tomorrow"}},
    "method unknown": {"quantization_config": {"bits": 4}},
}


@pytest.mark.parametrize("method", QUANTIZED)
def test_quantized_weights_are_refused(copy: Path, method: str) -> None:
    edit(copy / "config.json", **QUANTIZED[method])
    assert f"its weights are quantized ({method}) and cannot be edited" in refusal(copy)


def test_quantized_weights_are_known_by_their_tensors() -> None:
    refuse_quantized_tensors(["lm_head.bias", "model.rotary.inv_freq"])  # the control
    for name in ("qweight", "g_idx", "SCB", "weight_scale_inv", "quant_state.bitsandbytes__nf4"):
        with pytest.raises(ConfigError, match="quantized"):
            refuse_quantized_tensors([f"model.layers.0.mlp.down_proj.{name}"])


def test_a_quantized_model_object_is_refused() -> None:
    lm = make_tiny("llama")
    lm.model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ConfigError, match="model 'x': its weights are quantized"):
        prepare(lm.model, lm.tokenizer, architecture=lm.architecture, name="x")


def replaced(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def tokenizer_part(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "tokenizer.json", **changes)


def config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **changes)


def pickled(write: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        write(folder / "pytorch_model.bin")

    return damage


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n"


@dataclass
class Calls:
    """Pickled, it would make a folder when it is read."""

    folder: str

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.folder,)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a tokenizer of an unknown kind": (tokenizer_part(model={"type": "New", "vocab": {}}), "check its tokenizer.json"),
    "an unknown part of a tokenizer": (tokenizer_part(pre_tokenizer={"type": "New"}), "check its tokenizer.json"),
    "a tokenizer without a model": (tokenizer_part(model=None), "check its tokenizer.json"),
    "a list for a tokenizer": (replaced("tokenizer.json", "[]"), "check its tokenizer.json"),
    "null for a tokenizer": (replaced("tokenizer.json", "null"), "check its tokenizer.json"),
    "a torn tokenizer": (replaced("tokenizer.json", "{"), "check its tokenizer.json"),
    "bytes for a tokenizer": (replaced("tokenizer.json", b"\xff\xfe\0"), "check its tokenizer.json"),
    "a list for its settings": (replaced("tokenizer_config.json", "[]"), "check its tokenizer.json"),
    "a number for a token": (lambda f: edit(f / "tokenizer_config.json", eos_token=5), "check its tokenizer.json"),
    "unknown rotary positions": (config(rope_parameters={"rope_type": "spiral"}), "of the kind 'spiral'"),
    "older unknown positions": (config(rope_parameters=None, rope_scaling={"type": "su2"}), "of the kind 'su2'"),
    "positions without a factor": (config(rope_parameters={"rope_type": "longrope"}), "Missing required keys"),
    "a word for positions": (config(rope_parameters="linear"), "check its config.json"),
    "null for a configuration": (replaced("config.json", "null"), "check its config.json"),
    "a word for a number": (config(num_hidden_layers="four"), "expected int, got str"),
    "no heads": (config(num_attention_heads=0), "check its config.json"),
    "an unknown activation": (config(hidden_act="new"), "KeyError ('new'); check its config.json"),
    "other shapes": (config(intermediate_size=16), "its weights have other shapes than its config.json says (model."),
    "a pickle of other things": (pickled(lambda f: f.write_bytes(pickle.dumps({"a": 1}))), "pickle"),
    "no pickle": (pickled(lambda f: f.write_bytes(b"abc")), "check its config.json and its weights"),
    "a list of weights": (pickled(lambda f: torch.save([1, 2], f)), "check its config.json and its weights"),
    "a pointer of Git LFS": (replaced("model.safetensors", LFS), "model.safetensors is a pointer of Git LFS"),
}


def test_an_adapter_that_names_no_model(copy: Path) -> None:
    (copy / "config.json").rename(copy / "adapter_config.json")
    with pytest.raises(ConfigError, match=r"adapter_config\.json: expected an adapter's configuration"):
        load(copy)


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_one_line(
    copy: Path, damage: str, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    make, expected = DAMAGES[damage]
    make(copy)
    assert expected in refusal(copy)
    assert capfd.readouterr().err == ""  # transformers has printed nothing beside the line
    assert not recwarn.list


def test_pickled_code_is_not_run(copy: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pickled(lambda file: torch.save({"a": Calls(str(mark))}, file))(copy)
    assert "its weights are a pickle file with more than tensors" in refusal(copy)
    assert not mark.exists()


def test_any_exception_becomes_the_line(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        """As the tokenizers' Rust code raises it."""

    for error in (RecursionError("deep"), PanicException("index out of range"), OSError(30, "Read-only file system")):

        def fail(*args: object, error: BaseException = error, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr("romexp.lm.read_pretrained.AutoTokenizer.from_pretrained", fail)
        assert (error.args[-1]) in refusal(saved)
    assert "HF_HOME" in refusal(saved)
    monkeypatch.setattr("romexp.lm.read_pretrained._weights", lambda *args, **settings: torch.empty(1 << 60))
    refusal(saved)


def test_what_transformers_warned_of_comes_with_the_traceback(copy: Path) -> None:
    config(intermediate_size=16)(copy)
    with pytest.raises(ConfigError) as refused:
        load(copy)
    assert refused.value.__cause__ is not None
    assert any("MISMATCH" in note for note in refused.value.__cause__.__notes__)


@pytest.mark.parametrize("changes", [{"_attn_implementation": "flash_attention_2"}, {"pad_token_id": 99999}])
def test_what_does_not_matter_does_not_stop_it(saved: Path, copy: Path, changes: dict[str, object]) -> None:
    edit(copy / "config.json", **changes)
    assert torch.equal(logits(load(copy)), logits(load(saved)))


def test_weights_that_would_fill_the_memory_are_not_unpacked(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with zipfile.ZipFile(copy / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", bytes(1 << 25))
    with pytest.raises(DataError, match=r"pytorch_model\.bin: refused, because .* would unpack to 33,554,432 bytes"):
        load(copy)
