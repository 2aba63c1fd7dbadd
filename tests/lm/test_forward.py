"""Passes that run some blocks, or all, give what the model's own forward gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from forward_cases import CLOSE, TEXTS, VARIANTS, assert_rows, own_states, rows_of, variant
from torch import Tensor

from romexp.errors import RecordError
from romexp.lm.forward import Row, check_length, layer_of, logits, make_inputs, run_blocks, suffix_inputs
from romexp.lm.hooks import capture
from romexp.lm.model import LanguageModel


@pytest.fixture(scope="module", params=VARIANTS)
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    return variant(request.param, tiny_factory)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


class TestWholePass:
    def test_a_padded_batch_is_each_text_alone(self, lm: LanguageModel) -> None:
        rows = rows_of(lm)
        states = run_blocks(lm, make_inputs(lm, rows))
        assert_rows(states, [own_states(lm, row)[-1] for row in rows])
        assert not torch.allclose(states[0, :2], states[2, :2], atol=1e-2)

    def test_logits_are_the_models_own_in_float32(self, lm: LanguageModel) -> None:
        (row,) = rows_of(lm, TEXTS[:1])
        got = logits(lm, run_blocks(lm, make_inputs(lm, [row])))
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, lm.model(input_ids=torch.tensor([row.ids])).logits.float())

    def test_explicit_positions_count(self, lm: LanguageModel) -> None:
        (row,) = rows_of(lm, TEXTS[:1])
        moved = Row(ids=row.ids, positions=tuple(3 * p for p in row.positions), segments=row.segments)
        states = run_blocks(lm, make_inputs(lm, [row, moved]))
        assert_rows(states, [own_states(lm, row)[-1], own_states(lm, moved)[-1]])
        assert (states[0] - states[1]).abs().max() > 1e-3

    def test_padding_and_empty_rows_stay_finite(self, lm: LanguageModel) -> None:
        rows = [Row(ids=(), positions=(), segments=()), *rows_of(lm)]
        states = run_blocks(lm, make_inputs(lm, rows))
        assert states.isfinite().all()
        assert_rows(states[1:], [own_states(lm, row)[-1] for row in rows[1:]])

    def test_selected_rows_may_repeat(self, lm: LanguageModel) -> None:
        rows = rows_of(lm)
        chosen = [2, 0, 2]
        states = run_blocks(lm, make_inputs(lm, rows).select(torch.tensor(chosen)))
        assert_rows(states, [own_states(lm, rows[i])[-1] for i in chosen])


class TestSomeBlocks:
    def test_stopping_gives_the_state_between_blocks(self, lm: LanguageModel) -> None:
        rows = rows_of(lm)
        for stop in range(1, lm.n_layers):
            assert_rows(run_blocks(lm, make_inputs(lm, rows), stop=stop), [own_states(lm, row)[stop] for row in rows])

    def test_resuming_is_the_whole_pass(self, lm: LanguageModel) -> None:
        """After every block, the last included: then only the final norm is left."""
        given = make_inputs(lm, rows_of(lm))
        whole = run_blocks(lm, given)
        for start in range(1, lm.n_layers + 1):
            between = run_blocks(lm, given, stop=start)
            torch.testing.assert_close(run_blocks(lm, given, start=start, hidden=between), whole, **CLOSE)
            moved = run_blocks(lm, given, start=start, hidden=between + torch.randn_like(between))
            assert (moved - whole).abs().max() > 1e-2

    def test_a_slice_of_blocks(self, lm: LanguageModel) -> None:
        given = make_inputs(lm, rows_of(lm))
        middle = run_blocks(lm, given, start=1, stop=3, hidden=run_blocks(lm, given, stop=1))
        torch.testing.assert_close(middle, run_blocks(lm, given, stop=3), **CLOSE)
        torch.testing.assert_close(run_blocks(lm, given, start=2, stop=2, hidden=middle), middle)

    def test_only_those_blocks_run(self, lm: LanguageModel) -> None:
        ran: list[int] = []
        handles = [
            lm.block(layer).register_forward_hook(lambda *_, layer=layer: ran.append(layer))
            for layer in range(lm.n_layers)
        ]
        given = make_inputs(lm, rows_of(lm))
        try:
            state = run_blocks(lm, given, stop=2)
            assert ran == [0, 1]
            ran.clear()
            run_blocks(lm, given, start=3, hidden=state)
            assert ran == [3]
            ran.clear()
            run_blocks(lm, given)
            assert ran == [0, 1, 2, 3]
        finally:
            for handle in handles:
                handle.remove()

    def test_nothing_to_feed(self, lm: LanguageModel) -> None:
        given = make_inputs(lm, rows_of(lm))
        with pytest.raises(ValueError, match="no hidden state"):
            run_blocks(lm, given, stop=0)
        with pytest.raises(ValueError, match="block 2 needs"):
            run_blocks(lm, given, start=2)

    def test_the_model_is_whole_again(self, lm: LanguageModel) -> None:
        """After a pass, and after one that broke inside a block: same list, same blocks, no hooks."""
        parent = lm.module(lm.architecture.layers.rpartition(".")[0])
        blocks, given = lm.module(lm.architecture.layers), make_inputs(lm, rows_of(lm))
        order, whole = list(parent._modules), run_blocks(lm, given)

        def hooks() -> list[int]:  # transformers leaves some of its own
            return [len(block._forward_hooks) + len(block._forward_pre_hooks) for block in blocks]

        before = hooks()

        def check() -> None:
            assert lm.module(lm.architecture.layers) is blocks
            assert list(parent._modules) == order
            assert hooks() == before
            assert torch.equal(run_blocks(lm, given), whole)

        run_blocks(lm, given, start=1, stop=3, hidden=run_blocks(lm, given, stop=1))
        check()

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        handle = lm.block(2).register_forward_pre_hook(fail)
        with pytest.raises(ZeroDivisionError):
            run_blocks(lm, given, start=1, stop=3, hidden=run_blocks(lm, given, stop=1))
        handle.remove()
        check()

    def test_gradients_flow_to_the_state_fed_in(self, lm: LanguageModel) -> None:
        """As ROME needs them: ∂/∂h of a sum over the last token, against a finite difference."""
        given = make_inputs(lm, rows_of(lm, TEXTS[:1]))
        state = run_blocks(lm, given, stop=2)
        weights, step = torch.randn(lm.hidden_size, dtype=lm.dtype), torch.randn_like(state) * 3e-3

        def value(hidden: Tensor) -> Tensor:
            return run_blocks(lm, given, start=2, hidden=hidden)[0, -1] @ weights

        with torch.enable_grad():
            leaf = state.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(leaf), leaf)
        difference = (value(state + step) - value(state - step)) / 2
        assert float(difference) == pytest.approx(float((gradient * step).sum()), rel=5e-3)
        assert gradient[:, 0].abs().max() > 0


class TestCapture:
    def test_inputs_and_outputs_of_modules(self, lm: LanguageModel) -> None:
        """Tied together by the model's own arithmetic: memory(input) = output = what the MLP returns."""
        memory, mlp = lm.architecture.mlp_out_name(2), lm.architecture.mlp_name(2)
        with capture(lm, [memory], at="input") as inputs, capture(lm, [memory, mlp]) as outputs:
            run_blocks(lm, make_inputs(lm, rows_of(lm)))
        torch.testing.assert_close(lm.module(memory)(inputs[memory]), outputs[memory], **CLOSE)
        torch.testing.assert_close(outputs[memory], outputs[mlp], **CLOSE)
        assert inputs[memory].shape[-1] == 64

    def test_blocks_and_attention(self, lm: LanguageModel) -> None:
        """Modules that return tuples or take their input by name."""
        row, attention = rows_of(lm)[2], lm.architecture.attn_name(1)
        paths = [lm.architecture.block_name(0), attention]
        with capture(lm, paths) as outputs, capture(lm, paths, at="input") as inputs:
            run_blocks(lm, make_inputs(lm, [row]))
        torch.testing.assert_close(outputs[paths[0]][0], own_states(lm, row)[1], **CLOSE)
        torch.testing.assert_close(inputs[paths[0]][0], own_states(lm, row)[0], **CLOSE)
        assert outputs[attention].shape == inputs[attention].shape == (1, len(row), lm.hidden_size)

    def test_ends_also_after_an_error(self, lm: LanguageModel) -> None:
        memory = lm.architecture.mlp_out_name(2)
        with pytest.raises(ZeroDivisionError), capture(lm, [memory]) as captured:
            raise ZeroDivisionError
        run_blocks(lm, make_inputs(lm, rows_of(lm)))
        assert not captured.tensors
        with pytest.raises(AttributeError), capture(lm, [memory, "nowhere"]):
            pytest.fail("entered")
        assert not lm.module(memory)._forward_hooks


class TestLength:
    def test_a_text_longer_than_the_context_is_refused(self, tiny_lm: LanguageModel) -> None:
        make_inputs(tiny_lm, [Row.text([5] * 128)])
        with pytest.raises(RecordError, match=rf"129 tokens, but '{tiny_lm.name}' sees 128"):
            make_inputs(tiny_lm, [Row.text([5]), Row.text([5] * 129)])

    def test_packed_rows_count_positions_not_columns(self, tiny_gpt2: LanguageModel) -> None:
        half = tuple(range(100))
        row = Row(ids=(5,) * 200, positions=half + half, segments=(0,) * 100 + (1,) * 100)
        assert make_inputs(tiny_gpt2, [row]).ids.shape == (1, 200)

    def test_suffixes_count_from_the_texts_beginning(self, tiny_gpt2: LanguageModel) -> None:
        with pytest.raises(RecordError, match="129 tokens"):
            suffix_inputs(tiny_gpt2, [Row.text([5] * 129)], [120], prefix_width=120)

    def test_a_sliding_window_is_a_limit_too(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        """Explicit masks would look past it without an error."""
        lm = tiny_factory("mistral")
        lm.model.config.sliding_window = 8
        make_inputs(lm, [Row.text([5] * 8)])
        with pytest.raises(RecordError, match="9 tokens, but 'tiny-mistral' sees 8"):
            make_inputs(lm, [Row.text([5] * 9)])

    def test_a_window_that_is_switched_off_is_none(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("qwen2")
        lm.model.config.sliding_window, lm.model.config.use_sliding_window = 8, False
        check_length(lm, 128)
        with pytest.raises(RecordError, match="sees 128"):
            check_length(lm, 129)


def test_layer_of_a_parameter(lm: LanguageModel) -> None:
    for name, _ in lm.model.named_parameters():
        if name.startswith(f"{lm.architecture.layers}."):
            assert name.startswith(lm.architecture.block_name(layer_of(lm, name)) + ".")
        else:
            with pytest.raises(ValueError, match="not inside a block"):
                layer_of(lm, name)
