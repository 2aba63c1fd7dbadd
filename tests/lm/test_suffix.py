from __future__ import annotations

import pytest
import torch

from romexp.lm.forward import KeysAndValues, Row, make_inputs, run_blocks
from romexp.lm.hooks import capture
from romexp.lm.model import LanguageModel
from romexp.lm.suffix import Suffixes, last_states, run_suffixes
from romexp.lm.tokens import encode

TEXTS = ("The mother tongue of Danielle Darrieux is", "Steve Jobs was the founder of", "Anna plays the")
STARTS = ((0, 2), (0, 4), (1, 1), (2, 2), (2, 0))
"""Text and first token of each row: texts repeat, lengths differ."""


@pytest.fixture
def stored(tiny_lm: LanguageModel) -> tuple[list[tuple[int, ...]], torch.Tensor, KeysAndValues, torch.Tensor]:
    """Ids, inputs of all blocks and the last output, keys and values, and normed final states of a whole run."""
    ids = [encoding.ids for encoding in encode(tiny_lm.tokenizer, list(TEXTS))]
    cache = KeysAndValues(record=True)
    blocks = [tiny_lm.architecture.block_name(layer) for layer in range(tiny_lm.n_layers)]
    with torch.no_grad(), capture(tiny_lm, blocks[:1], at="input") as first, capture(tiny_lm, blocks) as outputs:
        final = run_blocks(tiny_lm, make_inputs(tiny_lm, [Row.text(i) for i in ids]), cache=cache)
    return ids, torch.stack([first[blocks[0]], *(outputs[path] for path in blocks)]), cache, final


def rows_of(ids: list[tuple[int, ...]], cache: KeysAndValues, places: tuple[tuple[int, int], ...]) -> Suffixes:
    source, starts = torch.tensor(places).T
    lengths = torch.tensor([len(ids[text]) - start for text, start in places])
    return Suffixes(
        cache=cache.stored,
        source=source,
        starts=starts,
        lengths=lengths,
        width=int(lengths.max()),
        before=int(starts.max()),
    )


@torch.no_grad()
def test_suffixes_of_a_run_give_its_final_states_from_any_layer(tiny_lm: LanguageModel, stored) -> None:
    ids, inputs, cache, final = stored
    for places in (STARTS, ((0, 1), (0, 1)), tuple((text, len(ids[text]) - 1) for text in range(3))):
        rows = rows_of(ids, cache, places)
        expected = torch.stack([final[text, len(ids[text]) - 1] for text, _ in places])
        for start in range(tiny_lm.n_layers + 1):
            found = last_states(tiny_lm, rows, start=start, hidden=rows.states(inputs[start]))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_changed_state_changes_what_follows_as_in_a_whole_pass(tiny_lm: LanguageModel, stored) -> None:
    ids, inputs, cache, final = stored
    text, start, layer = 0, 2, 1
    rows = rows_of(ids, cache, ((text, start),))
    change = torch.randn(tiny_lm.hidden_size, generator=torch.Generator().manual_seed(0))
    hidden = rows.states(inputs[layer])
    hidden[:, 0] += change
    whole = inputs[layer][[text], : len(ids[text])].clone()
    whole[:, start] += change
    expected = run_blocks(tiny_lm, make_inputs(tiny_lm, [Row.text(ids[text])]), start=layer, hidden=whole)[:, -1]
    found = last_states(tiny_lm, rows, start=layer, hidden=hidden)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[0], final[text, len(ids[text]) - 1], atol=1e-3)


@torch.no_grad()
def test_one_block_on_the_first_tokens_alone(tiny_lm: LanguageModel, stored) -> None:
    ids, inputs, cache, _ = stored
    rows = rows_of(ids, cache, STARTS).first_only()
    for layer in range(tiny_lm.n_layers):
        found = run_suffixes(tiny_lm, rows, start=layer, stop=layer + 1, hidden=rows.states(inputs[layer]))
        torch.testing.assert_close(found, rows.states(inputs[layer + 1]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_last_block_computes_one_column_alone(tiny_lm: LanguageModel, stored) -> None:
    ids, inputs, cache, _ = stored
    rows, last = rows_of(ids, cache, STARTS), tiny_lm.n_layers - 1
    mlps = [tiny_lm.architecture.mlp_name(layer) for layer in (last - 1, last)]
    with capture(tiny_lm, mlps) as outputs:
        last_states(tiny_lm, rows, start=last - 1, hidden=rows.states(inputs[last - 1]))
    assert [outputs[path].shape[:2] for path in mlps] == [(len(STARTS), rows.width), (len(STARTS), 1)]
