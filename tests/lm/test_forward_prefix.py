"""Suffixes over cached prefixes, and alternatives packed behind one prompt, give what whole texts alone give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from conftest import FAMILIES
from forward_cases import CLOSE, VARIANTS, assert_rows, own_states, rows_of, variant
from torch import Tensor

from romexp.lm.forward import KeysAndValues, Row, logits, make_inputs, run_blocks, suffix_inputs
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode


@pytest.fixture(scope="module", params=VARIANTS)
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    return variant(request.param, tiny_factory)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def tails(lm: LanguageModel, rows: Sequence[Row], starts: Sequence[int], layer: int) -> tuple[Tensor, KeysAndValues]:
    """Final states of each row's tokens from its start on, over keys and values of what lies left of them."""
    hidden = run_blocks(lm, make_inputs(lm, rows), stop=layer) if layer else None
    heads = [Row.text(row.ids[:start]) for row, start in zip(rows, starts, strict=True)]
    width = max(starts)
    recorder = KeysAndValues(record=True)
    if width:
        run_blocks(
            lm,
            make_inputs(lm, heads),
            start=layer,
            hidden=None if hidden is None else hidden[:, :width],
            cache=recorder,
        )
    given = suffix_inputs(lm, rows, starts, prefix_width=width)
    fed = None
    if hidden is not None:
        columns = torch.tensor(starts)[:, None] + torch.arange(given.ids.shape[1])[None]
        fed = hidden[torch.arange(len(rows))[:, None], columns.clamp(max=hidden.shape[1] - 1)]
    cache = KeysAndValues(prefix=recorder.stored)
    return run_blocks(lm, given, start=layer, hidden=fed, cache=cache), cache


class TestPrefix:
    @pytest.mark.parametrize("layer", [0, 1, 3])
    def test_a_suffix_over_its_cached_prefix_is_the_whole_pass(self, lm: LanguageModel, layer: int) -> None:
        rows = rows_of(lm)
        starts = [3, 0, len(rows[2]) - 1, 1]  # of unequal length, among them none and all but one
        states, _ = tails(lm, rows, starts, layer)
        assert_rows(states, [own_states(lm, row)[-1][start:] for row, start in zip(rows, starts, strict=True)])

    def test_no_prefix_at_all(self, lm: LanguageModel) -> None:
        rows = rows_of(lm)
        states, _ = tails(lm, rows, [0] * len(rows), 2)
        assert_rows(states, [own_states(lm, row)[-1] for row in rows])

    def test_the_prefix_is_looked_at(self, lm: LanguageModel) -> None:
        rows, starts = rows_of(lm)[2:3], [5]
        states, cache = tails(lm, rows, starts, 1)
        cache.prefix = {layer: (k, torch.zeros_like(v)) for layer, (k, v) in cache.prefix.items()}
        given = suffix_inputs(lm, rows, starts, prefix_width=5)
        blind = run_blocks(lm, given, start=1, hidden=run_blocks(lm, make_inputs(lm, rows), stop=1)[:, 5:], cache=cache)
        assert (blind - states).abs().max() > 1e-3

    def test_a_prefix_serves_many_passes(self, lm: LanguageModel) -> None:
        """`update` returns prefix + new and stores nothing."""
        rows, starts = rows_of(lm)[2:3], [5]
        states, cache = tails(lm, rows, starts, 0)
        assert cache.get_seq_length() == 5
        again = run_blocks(lm, suffix_inputs(lm, rows, starts, prefix_width=5), cache=cache)
        torch.testing.assert_close(again, states, **CLOSE)
        assert not cache.stored


class TestPackedAlternatives:
    ALTERNATIVES = (" Apple and Bob", "", " phone", " violin; the bank of the north")

    def packed(self, lm: LanguageModel, segments: bool) -> tuple[Row, list[Row], list[range]]:
        """One row with every alternative behind the prompt, each as a row of its own, and its columns when packed."""
        prompt = encode(lm.tokenizer, ["Steve Jobs was the founder of the"])[0].ids
        ids, positions, labels, alone, columns = list(prompt), list(range(len(prompt))), [0] * len(prompt), [], []
        for k, text in enumerate(self.ALTERNATIVES, start=1):
            tail = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
            columns.append(range(len(ids), len(ids) + len(tail)))
            alone.append(Row.text([*prompt, *tail]))
            ids += tail
            positions += range(len(prompt), len(prompt) + len(tail))
            labels += [k if segments else 0] * len(tail)
        return Row(ids=tuple(ids), positions=tuple(positions), segments=tuple(labels)), alone, columns

    def test_each_is_as_if_alone(self, lm: LanguageModel) -> None:
        row, alone, columns = self.packed(lm, segments=True)
        states = run_blocks(lm, make_inputs(lm, [*rows_of(lm), row]))[-1]
        n = columns[0].start
        for own, where in zip(alone, columns, strict=True):
            torch.testing.assert_close(states[[*range(n), *where]], own_states(lm, own)[-1], **CLOSE)

    def test_without_segments_they_see_each_other(self, lm: LanguageModel) -> None:
        row, alone, columns = self.packed(lm, segments=False)
        states = run_blocks(lm, make_inputs(lm, [row]))[0]
        expected = own_states(lm, alone[2])[-1][columns[0].start :]
        assert (states[list(columns[2])] - expected).abs().max() > 1e-3


def test_half_precision(tiny_factory: Callable[..., LanguageModel]) -> None:
    for family in FAMILIES:
        half, whole = tiny_factory(family, dtype=torch.bfloat16), tiny_factory(family)
        rows, starts = rows_of(half), [3, 0, 5, 1]
        states = run_blocks(half, make_inputs(half, rows))
        assert states.dtype == torch.bfloat16
        assert logits(half, states).dtype == torch.float32
        expected = run_blocks(whole, make_inputs(whole, rows))
        for i, row in enumerate(rows):
            error = (states[i, : len(row)].float() - expected[i, : len(row)]).norm()
            assert error < 0.1 * expected[i, : len(row)].norm()
        cut, _ = tails(half, rows, starts, 1)
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            mine, own = cut[i, : len(row) - start].float(), states[i, start : len(row)].float()
            assert (mine - own).norm() < 0.05 * own.norm()
