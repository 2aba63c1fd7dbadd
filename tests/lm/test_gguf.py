"""GGUF files: read once, kept whole, with the numbers that the file holds; one line for whatever is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from conftest import make_tiny

import romexp
from romexp.errors import ConfigError, DataError
from romexp.lm import gguf
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.lm.model_source import is_installed
from romexp.tasks.run import describe_model

pytest.importorskip("gguf", reason="the package gguf is not installed")
pytest.importorskip("accelerate", reason="the package accelerate is not installed")

from gguf_cases import write_gguf

TEXT = "Steve Jobs plays the violin in Zürich."


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return make_tiny("llama")


@pytest.fixture(scope="module")
def exact(tiny: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tiny, tmp_path_factory.mktemp("gguf") / "Tiny-Llama.gguf")


@pytest.fixture(scope="module")
def quantized(tiny: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tiny, tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf", quantized="Q8_0")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROMEXP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(path: Path | str, **fields: object) -> LanguageModel:
    return PretrainedModel(path=str(path), **{"device": "cpu", **fields}).load()  # type: ignore[arg-type]


def logits(lm: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([lm.tokenizer(TEXT)["input_ids"]])).logits


def converted(cache: Path) -> list[Path]:
    return sorted(cache.glob("gguf/*/*/model.safetensors"))


class TestNumbers:
    def test_unquantized_weights_and_tokenizer_are_those_of_the_model(
        self, tiny: LanguageModel, exact: Path, cache: Path
    ) -> None:
        lm = load(exact)
        for name, value in tiny.model.state_dict().items():
            assert torch.equal(lm.model.state_dict()[name], value), name
        assert lm.tokenizer(TEXT)["input_ids"] == tiny.tokenizer(TEXT)["input_ids"]
        torch.testing.assert_close(logits(lm), logits(tiny), atol=1e-5, rtol=1e-5)
        assert (lm.name, lm.architecture.family) == ("Tiny-Llama", "llama")

    def test_quantized_weights_are_dequantized_and_the_model_says_so(
        self, tiny: LanguageModel, quantized: Path, cache: Path
    ) -> None:
        import gguf as package

        lm, name = load(quantized), "model.layers.1.mlp.down_proj.weight"
        kind = package.GGMLQuantizationType.Q8_0
        original = tiny.model.state_dict()[name].numpy()
        expected = torch.from_numpy(package.dequantize(package.quantize(original, kind), kind))
        assert torch.equal(lm.parameter(name), expected)
        assert not torch.equal(lm.parameter(name), tiny.parameter(name)), "a control: 8 bits are not 32"
        origin = lm.provenance
        assert (origin["file"], origin["dequantized_to"]) == ("tiny.Q8_0.gguf", "float32")
        assert origin["tensors"] == {"Q8_0": 28, "F32": 11}
        assert describe_model(lm)["converted_from"] == origin
        assert "converted_from" not in describe_model(tiny)

    def test_in_the_type_of_the_settings(self, quantized: Path, cache: Path) -> None:
        wide, half = load(quantized), load(quantized, dtype="bfloat16")
        assert half.dtype == torch.bfloat16
        assert half.provenance["dequantized_to"] == "bfloat16"
        name = "model.layers.0.mlp.up_proj.weight"
        assert torch.equal(half.parameter(name), wide.parameter(name).bfloat16())
        assert len(converted(cache)) == 2

    @pytest.mark.skipif(not hasattr(transformers, "GgufConfig"), reason="this transformers never keeps weights packed")
    def test_plain_matrices_are_asked_for(self, quantized: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a kernel for packed weights transformers keeps them packed where nobody asks."""
        asked = []
        own = transformers.AutoModelForCausalLM.from_pretrained

        def read(*args: object, **kwargs: object) -> object:
            asked.append(kwargs.get("quantization_config"))
            return own(*args, **kwargs)

        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", read)
        load(quantized)
        assert asked[0].dequantize


class TestCache:
    def test_converted_once_wherever_the_file_lies(
        self, exact: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = load(exact)
        monkeypatch.setattr(gguf, "_convert", pytest.fail)
        elsewhere = Path(shutil.copy(exact, tmp_path / "Other name.GGUF"))
        again = load(elsewhere)
        assert again.digest == first.digest
        assert again.name == "Other name"
        assert len(converted(cache)) == 1

    def test_another_file_is_converted_anew(self, exact: Path, quantized: Path, cache: Path) -> None:
        assert load(exact).digest != load(quantized).digest
        assert len(converted(cache)) == 2

    def test_a_conversion_that_was_cut_off_is_never_used(
        self, exact: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*arguments: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(gguf, "_write_origin", killed)  # the weights are written, the last file is not
        with pytest.raises(KeyboardInterrupt):
            load(exact)
        assert not converted(cache)
        monkeypatch.undo()
        monkeypatch.setenv("ROMEXP_CACHE", str(cache))
        (folder,) = {path.parent for path in cache.glob("gguf/*/*.lock")}
        torn = folder / "float32.part"  # as kill -9 leaves it
        torn.mkdir()
        (torn / "model.safetensors").write_bytes(b"half")
        torch.testing.assert_close(logits(load(exact)), logits(load(exact)))
        assert not torn.exists()

    def test_a_folder_without_its_last_file_is_made_again(self, exact: Path, cache: Path) -> None:
        before = logits(load(exact))
        (weights,) = converted(cache)
        weights.write_bytes(b"half")
        (weights.parent / gguf.ORIGIN).unlink()
        torch.testing.assert_close(logits(load(exact)), before)

    def test_files_beside_it_are_not_read(self, exact: Path, cache: Path, tmp_path: Path) -> None:
        beside = Path(shutil.copy(exact, tmp_path / "tiny.gguf"))
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
        (tmp_path / "adapter_config.json").write_text("{}")
        (tmp_path / "tokenizer.json").write_text("not a tokenizer")
        assert load(beside).digest == load(exact).digest

    def test_weights_are_as_readable_as_the_rest(self, exact: Path, cache: Path) -> None:
        load(exact)
        (weights,) = converted(cache)
        assert weights.stat().st_mode == (weights.parent / "config.json").stat().st_mode


class TestMistakes:
    def test_no_such_file(self, cache: Path) -> None:
        with pytest.raises(ConfigError, match=r"model\.path: there is no file 'no/such\.gguf'"):
            load("no/such.gguf")

    def test_another_kind_of_file(self, cache: Path, tmp_path: Path) -> None:
        (tmp_path / "x.gguf").write_text("version https://git-lfs.github.com/spec/v1")
        with pytest.raises(ConfigError, match=r"x\.gguf' is not a GGUF file"):
            load(tmp_path / "x.gguf")

    @pytest.mark.parametrize("size", [4, 100, 3000, 100_000])
    def test_a_file_that_was_cut_off(self, exact: Path, cache: Path, tmp_path: Path, size: int) -> None:
        (tmp_path / "cut.gguf").write_bytes(exact.read_bytes()[:size])
        with pytest.raises(ConfigError, match=r"^model\.path: cannot convert '.*cut\.gguf', which is damaged .+\)$"):
            load(tmp_path / "cut.gguf")
        assert not list(cache.glob("gguf/*/*.part"))

    def test_a_family_that_is_not_known(self, tiny: LanguageModel, cache: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot convert .* plamo"):
            load(write_gguf(tiny, tmp_path / "x.gguf", family="plamo"))

    def test_a_missing_package(self, exact: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gguf, "find_spec", lambda name: None)
        with pytest.raises(ConfigError, match=r"not installed: pip install gguf accelerate$"):
            load(exact)

    def test_an_unwritable_cache(self, exact: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(DataError, match=r"^cache_dir: cannot write "):
            load(exact, cache_dir=tmp_path / "file")


class TestPackages:
    @pytest.fixture
    def package(self, exact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """An installed package that carries the file. Importing it fails, as if its requirements were missing."""
        folder = tmp_path / "site" / "tiny_package"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("import no_such_module")
        shutil.copy(exact, folder / "tiny.gguf")
        monkeypatch.syspath_prepend(folder.parent)
        return "pkg://tiny_package/tiny.gguf"

    def test_a_file_of_a_package_that_is_not_imported(self, package: str, exact: Path, cache: Path) -> None:
        assert is_installed(package)
        assert load(package).digest == load(exact).digest

    def test_without_the_package_one_line_says_how(self, cache: Path) -> None:
        path = "pkg://no_such_package/x.gguf"
        assert not is_installed(path)
        with pytest.raises(ConfigError, match=r"^model\.path: .* no_such_package, .* to install it: make it$"):
            load(path, setup="make it")

    @pytest.mark.parametrize("path", ["pkg://", "pkg://torch", "pkg:///x", "pkg://a b/c"])
    def test_half_a_path(self, path: str) -> None:
        with pytest.raises(ConfigError, match=r"expected pkg://<package>/<file or folder>"):
            load(path)

    def test_a_package_without_the_file(self, package: str, cache: Path) -> None:
        with pytest.raises(ConfigError, match=r"there is no file .*other\.gguf"):
            load(package.replace("tiny.gguf", "other.gguf"))


def test_in_python(exact: Path, cache: Path) -> None:
    lm = romexp.load(exact)
    assert lm.name == "Tiny-Llama"
    assert lm.provenance["file"] == "Tiny-Llama.gguf"
    assert lm.generate("Steve Jobs", max_new_tokens=3).startswith("Steve Jobs")
