"""`import romexp`: loading a model and asking it for text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from face_cases import REWORDED, SENTENCE
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import romexp
from romexp.api.models import LoadedModel
from romexp.compose import compose_config
from romexp.errors import ConfigError, RomexpError
from romexp.lm.model import LanguageModel


def test_importing_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import romexp; spent = time.perf_counter() - start; "
        "heavy = [m for m in ('torch', 'transformers', 'hydra', 'pandas', 'numpy') if m in sys.modules]; "
        "import json; print(json.dumps([spent, heavy, dir(romexp)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spent, heavy, names = json.loads(done.stdout)
    assert heavy == []
    assert spent < 0.1
    assert {"load", "edit", "load_edit", "editor", "trace", "dataset", "evaluate"} <= set(names)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        romexp.lod  # noqa: B018


class TestLoad:
    def test_a_shipped_name(self, face_lm: LoadedModel) -> None:
        assert (face_lm.name, face_lm.option, face_lm.n_layers) == ("minifact", "minifact", 8)
        assert repr(face_lm).startswith("<minifact: gpt2, 8 layers, 1.8 M parameters, float32 on cpu")

    def test_a_folder(self, face_lm: LoadedModel, tmp_path: Path) -> None:
        face_lm.model.save_pretrained(tmp_path / "mine")
        face_lm.tokenizer.save_pretrained(tmp_path / "mine")
        mine = romexp.load(tmp_path / "mine", device="cpu")
        assert (mine.name, mine.option) == ("mine", "")
        assert mine.generate(SENTENCE, 5) == face_lm.generate(SENTENCE, 5)

    def test_a_model_object(self, tiny_factory) -> None:  # type: ignore[no-untyped-def]
        tiny = tiny_factory("llama")
        tiny.model.train()
        taken = romexp.load(tiny.model, tiny.tokenizer, name="mine")
        assert taken.model is tiny.model
        assert not taken.model.training
        assert taken.name == "mine"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((3,), "expected a name, a folder or a Hugging Face model, got int"),
            (("/nowhere/at/all",), "there is no folder '/nowhere/at/all'"),
            (("minifact", "a tokenizer"), "tokenizer: only for a model object"),
            (("",), "model is empty"),
        ],
    )
    def test_what_cannot_be_loaded(self, arguments: tuple[object, ...], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            romexp.load(*arguments)  # type: ignore[arg-type]

    def test_a_model_object_needs_its_tokenizer(self, tiny_gpt2: LanguageModel) -> None:
        with pytest.raises(ConfigError, match="needs its tokenizer"):
            romexp.load(tiny_gpt2.model)


class TestGenerate:
    def test_lists_come_back_as_lists_in_order(self, face_lm: LoadedModel) -> None:
        prompts = [REWORDED, "Anna", SENTENCE, "Bob lives in the city of"]
        together = face_lm.generate(prompts, 6)
        assert together == [face_lm.generate(prompt, 6) for prompt in prompts]
        assert all(text.startswith(prompt) for text, prompt in zip(together, prompts, strict=True))

    def test_draws_depend_on_the_prompt_and_not_on_its_neighbours(self, face_lm: LoadedModel) -> None:
        together = face_lm.generate(["He", "She", "She"], 20, top_k=10)
        assert together[1] == face_lm.generate("She", 20, top_k=10)
        assert together[2] != together[1], "one prompt asked twice is drawn twice"

    def test_draws_depend_on_the_seed(self, face_lm: LoadedModel) -> None:
        assert face_lm.generate("She", 20, top_k=10, seed=1) == face_lm.generate("She", 20, top_k=10, seed=1)
        assert face_lm.generate("She", 20, top_k=10, seed=1) != face_lm.generate("She", 20, top_k=10, seed=2)

    def test_the_number_of_new_tokens(self, face_lm: LoadedModel) -> None:
        for count in (1, 4):
            ids = face_lm.tokenizer(face_lm.generate(SENTENCE, count))["input_ids"]
            assert len(ids) == len(face_lm.tokenizer(SENTENCE)["input_ids"]) + count

    @pytest.mark.parametrize("ends", [True, False])
    def test_a_text_ends_at_the_end_of_text(
        self, tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch, ends: bool
    ) -> None:
        lm = romexp.load(tiny_gpt2.model, tiny_gpt2.tokenizer)
        (word,) = lm.tokenizer("a")["input_ids"]
        end = lm.tokenizer.eos_token_id if ends else word
        drawn = iter([word, word, end, word, word])
        monkeypatch.setattr("romexp.lm.sampling._draw", lambda *_: torch.tensor([next(drawn)]))
        assert lm.generate("Paris", 5) == ("Parisaa" if ends else "Parisaaaaa")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("", 5), "prompt is empty"),
            (([], 5), "prompt: expected a text or a list of texts"),
            ((["a", ""], 5), r"prompt\[1\] is empty"),
            (("a", 0), "max_new_tokens: expected a whole number of at least 1, got 0"),
            (("a", 5000), "sees 128 at once"),
        ],
    )
    def test_bad_requests(self, face_lm: LoadedModel, arguments: tuple[object, int], message: str) -> None:
        with pytest.raises(RomexpError, match=message):
            face_lm.generate(*arguments)  # type: ignore[call-overload]


def test_composing_leaves_hydra_as_it_was(tmp_path: Path) -> None:
    """In a process that uses Hydra for something else."""
    (tmp_path / "own.yaml").write_text("value: 3\n")
    with initialize_config_dir(config_dir=str(tmp_path), version_base="1.3"):
        assert compose_config(["model=minifact", "editor=ft"]).editor.name == "FT"
        assert compose("own").value == 3
    assert not GlobalHydra.instance().is_initialized()
    with pytest.raises(ConfigError, match="editor=nothing"):
        compose_config(["editor=nothing"])


def test_the_stub_names_what_is_imported_when_used() -> None:
    """Type checkers read `__init__.pyi`; Python reads the table of names."""
    stub = (Path(romexp.__file__).with_name("__init__.pyi")).read_text(encoding="utf-8")
    named = {line.split()[3]: line.split()[1] for line in stub.splitlines() if line.startswith("from ")}
    assert named == {name: f"romexp.api.{module}" for name, module in romexp._FACE.items()}
