"""Tokenizers whose pad, end-of-text or other added tokens are missing or have no embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import make_tiny

from romexp.editors.contexts import context_templates
from romexp.errors import RecordError
from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.model import LanguageModel, prepare
from romexp.lm.packing import Query
from romexp.lm.sampling import Sampler, generate
from romexp.lm.scoring import score

TEXTS = ("Paris", "The Space Needle is in the city of Seattle")


def with_tokenizer(change: dict[str, Any]) -> LanguageModel:
    lm = make_tiny("llama")
    lm.tokenizer.pad_token = None
    for name, token in change.items():
        if token is None:
            setattr(lm.tokenizer, name, None)
        else:
            lm.tokenizer.add_special_tokens({name: token})
    return prepare(lm.model, lm.tokenizer, architecture=lm.architecture, name="x")


def states(lm: LanguageModel) -> torch.Tensor:
    rows = [Row.text(lm.tokenizer(text)["input_ids"]) for text in TEXTS]
    final = run_blocks(lm, make_inputs(lm, rows)).detach()
    return torch.cat([state[: len(row)] for state, row in zip(final, rows, strict=True)])


BEYOND = {"pad_token": "[PAD]"}
NO_END: dict[str, Any] = {"eos_token": None}
CASES: list[dict[str, Any]] = [BEYOND, NO_END, {"eos_token": "<end>"}, {"eos_token": None, "pad_token": "[PAD]"}]


@pytest.mark.parametrize("change", CASES, ids=str)
def test_numbers_are_those_with_the_end_of_text_as_padding(change: dict[str, Any]) -> None:
    plain, lm = with_tokenizer({}), with_tokenizer(change)
    assert lm.tokenizer.pad_token_id in range(lm.vocabulary_size)
    assert torch.equal(states(lm), states(plain))
    queries = [Query(prompt=text, targets=(" Paris", " Rome is")) for text in TEXTS]
    assert score(lm, queries) == score(plain, queries)
    prompts = {"prompts": TEXTS, "sampler": Sampler(max_length=20), "seeds": [1, 2]}
    assert generate(lm, **prompts) == generate(plain, **prompts)


def test_a_pad_token_beyond_the_embedding_is_replaced() -> None:
    lm = make_tiny("llama")
    lm.tokenizer.add_special_tokens(BEYOND)
    assert lm.tokenizer.pad_token_id == lm.vocabulary_size  # the control: it has no embedding
    assert with_tokenizer(BEYOND).tokenizer.pad_token_id == with_tokenizer({}).tokenizer.pad_token_id == 0


def test_texts_begin_without_an_end_of_text_token(caplog: pytest.LogCaptureFixture) -> None:
    assert with_tokenizer({}).start_id == 0
    assert not caplog.records
    lm = with_tokenizer(NO_END)
    assert "x: no end-of-text token; texts without a prompt are sampled from" in caplog.text
    lm.model.config.bos_token_id = 7
    assert replace(lm).start_id == 7  # a fresh value, so that it is looked up anew
    templates = context_templates(lm, given=None, length_counts=[[5, 2]], seed=0, cache_dir=None)
    assert len(templates) == 3
    assert all(template.endswith("{}") for template in templates)


def test_the_start_is_no_part_of_the_text() -> None:
    lm = replace(with_tokenizer(NO_END))
    lm.model.config.bos_token_id = 70
    (text,) = generate(lm, [""], sampler=Sampler(max_length=6), seeds=[0])
    (grown,) = generate(lm, [lm.tokenizer.decode([70])], sampler=Sampler(max_length=6), seeds=[0])
    assert grown == lm.tokenizer.decode([70]) + str(text)


def test_no_end_of_text_is_found_without_such_a_token() -> None:
    lm = with_tokenizer(NO_END)
    arguments: dict[str, Any] = {"sampler": Sampler(max_length=20), "seeds": [3]}
    assert generate(lm, ["Paris"], stop_at_end=True, **arguments) == generate(lm, ["Paris"], **arguments)


def test_a_text_with_a_token_without_embedding_is_set_aside() -> None:
    lm = with_tokenizer(BEYOND)
    texts = generate(lm, ["Paris [PAD]", "Paris"], sampler=Sampler(max_length=8), seeds=[0, 0])
    assert isinstance(texts[0], RecordError)
    assert "token '[PAD]', for which 'x' has no embedding" in str(texts[0])
    assert isinstance(texts[1], str)
    with pytest.raises(RecordError, match="no embedding"):
        make_inputs(lm, [Row.text(lm.tokenizer("Paris [PAD]")["input_ids"])])
