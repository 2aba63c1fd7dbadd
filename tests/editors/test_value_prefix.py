"""Keys and values before the edited token: shared tokens run once, and nothing changes."""

from __future__ import annotations

import pytest
import torch
from edit_cases import REQUESTS, TEMPLATES

from romexp.editors.values.prefix import keys_and_values_before, shared_start
from romexp.editors.values.texts import EditText, edit_texts
from romexp.errors import without_errors
from romexp.lm.forward import KeysAndValues, Row, make_inputs, run_blocks
from romexp.lm.model import LanguageModel

CHOICES = [(0, 1, 2, 3), (0, 2), (1, 3), (3,)]
"""Of the second all subjects begin their prompts, so that only contexts come before them."""


def texts_of(lm: LanguageModel, numbers: tuple[int, ...]) -> list[EditText]:
    found = without_errors(edit_texts(lm, [REQUESTS[i] for i in numbers], TEMPLATES, fact_token="subject_last"))
    return [text for row in found for text in row][::-1]


@pytest.mark.parametrize("numbers", CHOICES)
@pytest.mark.parametrize("start", [1, 2])
def test_they_are_those_of_whole_passes(tiny_lm: LanguageModel, numbers: tuple[int, ...], start: int) -> None:
    texts = texts_of(tiny_lm, numbers)
    inputs = make_inputs(tiny_lm, [text.row for text in texts])
    with torch.no_grad():
        hidden = run_blocks(tiny_lm, inputs, stop=start)
        found = keys_and_values_before(tiny_lm, texts, hidden, start=start)
        whole = KeysAndValues(record=True)
        run_blocks(tiny_lm, inputs, start=start, hidden=hidden, cache=whole)
    assert sorted(found) == list(range(start, tiny_lm.n_layers))
    for layer, both in found.items():
        for ours, theirs in zip(both, whole.stored[layer], strict=True):
            for i, text in enumerate(texts):
                torch.testing.assert_close(ours[i, :, : text.lookup], theirs[i, :, : text.lookup], atol=1e-5, rtol=1e-5)


def test_shared_tokens_run_once(tiny_gpt2: LanguageModel) -> None:
    texts = texts_of(tiny_gpt2, CHOICES[0])
    hidden = run_blocks(tiny_gpt2, make_inputs(tiny_gpt2, [text.row for text in texts]), stop=1)
    tokens: list[int] = []
    handle = tiny_gpt2.module(tiny_gpt2.architecture.block_name(1)).register_forward_hook(
        lambda _m, args, _out: tokens.append(args[0].shape[0] * args[0].shape[1])
    )
    try:
        keys_and_values_before(tiny_gpt2, texts, hidden, start=1)
    finally:
        handle.remove()
    assert sum(tokens) < 0.8 * len(texts) * max(text.lookup for text in texts)  # one pass over all, padded


def test_nothing_comes_before(tiny_gpt2: LanguageModel) -> None:
    texts = [text for text in texts_of(tiny_gpt2, (2,)) if not text.lookup]
    assert texts
    hidden = torch.zeros(len(texts), 9, tiny_gpt2.hidden_size)
    assert keys_and_values_before(tiny_gpt2, texts, hidden, start=1) == {}
    assert keys_and_values_before(tiny_gpt2, texts_of(tiny_gpt2, (1,)), hidden, start=4) == {}


@pytest.mark.parametrize(
    ("rows", "expected"), [(["ab"], 2), (["ab", "abc"], 2), (["ab", "ac"], 1), (["ab", ""], 0), (["a", "b"], 0)]
)
def test_shared_start(rows: list[str], expected: int) -> None:
    assert shared_start([Row.text([ord(letter) for letter in row]) for row in rows]) == expected
