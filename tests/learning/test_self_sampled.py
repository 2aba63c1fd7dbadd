"""Edits from text that the model wrote: the file's layout, and making one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from learning_cases import TEXTS

from romexp.errors import ConfigError, DataError
from romexp.learning.self_sampled import SelfSampledEdits, self_sampled_edit
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode


@dataclass(frozen=True)
class Memory:
    texts: tuple[str, ...] = TEXTS

    @property
    def provenance(self) -> dict[str, Any]:
        return {"kind": "memory"}

    def load(self) -> tuple[str, ...]:
        return self.texts


def source(**changes: Any) -> SelfSampledEdits:
    return SelfSampledEdits(**{"corpus": Memory(), "count": 5, "n_tokens": 3, "context_tokens": (4, 6)} | changes)


def test_a_file_in_the_authors_layout(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    texts = [*TEXTS, "a"]
    file.write_text(json.dumps({"original": texts, "completions": texts, "n_tokens": 2}))
    found = SelfSampledEdits(path=file, validation=0.3).load(tiny_gpt2, seed=0, cache_dir=tmp_path)
    every = (*found.training, *found.validation)
    assert {edit.text.ids for edit in every} == {encoding.ids for encoding in encode(tiny_gpt2.tokenizer, TEXTS)}
    assert all(len(edit.text.ids) - edit.text.target_start == 2 and not edit.rephrasings for edit in every)
    assert [entry["case_id"] for entry in found.set_aside] == [6], "too short"
    assert len(found.validation) == 2


def test_a_bos_is_left_in_place(tiny_llama_bos: LanguageModel, tiny_gpt2: LanguageModel) -> None:
    assert self_sampled_edit(tiny_llama_bos, TEXTS[0], 2).uncut == 1
    assert self_sampled_edit(tiny_gpt2, TEXTS[0], 2).uncut == 0


def test_the_model_writes_a_file_once(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    found = source().load(tiny_gpt2, seed=0, cache_dir=tmp_path)
    (file,) = (tmp_path / "self_sampled").glob("*.json")
    content = json.loads(file.read_text())
    assert content["n_tokens"] == 3
    assert len(content["completions"]) == 5
    for prompt, text in zip(content["original"], content["completions"], strict=True):
        assert text.startswith(prompt)
        assert any(whole.startswith(prompt) for whole in TEXTS)
        assert 4 <= len(encode(tiny_gpt2.tokenizer, [prompt])[0].ids) <= 6
    before = file.stat().st_mtime_ns
    assert source().load(tiny_gpt2, seed=0, cache_dir=tmp_path) == found
    assert file.stat().st_mtime_ns == before
    assert source().make(tiny_gpt2, 0) == content
    assert source().make(tiny_gpt2, 1) != content
    source(temperature=0.5).load(tiny_gpt2, seed=0, cache_dir=tmp_path)
    assert len(list((tmp_path / "self_sampled").glob("*.json"))) == 2


@torch.no_grad()
def test_with_one_candidate_the_text_is_the_greedy_one(tiny_gpt2: LanguageModel) -> None:
    made = source(top_k=1, n_tokens=1).make(tiny_gpt2, 0)
    for prompt, text in zip(made["original"], made["completions"], strict=True):
        ids = torch.tensor([encode(tiny_gpt2.tokenizer, [prompt])[0].ids])
        token = tiny_gpt2.model(input_ids=ids).logits[0, -1].argmax()
        assert text == prompt + tiny_gpt2.tokenizer.decode([int(token)])


@pytest.mark.parametrize(
    ("content", "said"),
    [("[1", "not JSON"), ('{"n_tokens": 1}', "completions"), ('{"completions": ["a"], "n_tokens": 0}', "n_tokens")],
)
def test_another_layout_is_refused(tiny_gpt2: LanguageModel, tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "train.json"
    file.write_text(content)
    with pytest.raises(DataError, match=said):
        SelfSampledEdits(path=file).load(tiny_gpt2, seed=0, cache_dir=tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        SelfSampledEdits(path=tmp_path / "nowhere.json").load(tiny_gpt2, seed=0, cache_dir=tmp_path)


def test_settings_that_cannot_be(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    for bad in ({"context_tokens": (5, 2)}, {"n_tokens": 0}, {"corpus": None}):
        with pytest.raises(ConfigError, match=r"task\.edits"):
            source(**bad)
    with pytest.raises(DataError, match="no text has 100 tokens"):
        source(context_tokens=(100, 110)).load(tiny_gpt2, seed=0, cache_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"n_tokens\) are more than the \d+ that"):
        source(n_tokens=10_000).load(tiny_gpt2, seed=0, cache_dir=tmp_path)
