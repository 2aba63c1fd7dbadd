"""`applied` adds exactly ΔW and takes exactly it back; `overlay` is many applied deltas side by side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import FAMILIES
from delta_cases import dense, low_rank, many_deltas, memory, run, some_ids

from romexp.lm.apply_delta import applied, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, WeightDelta


@pytest.fixture(scope="module", params=list(FAMILIES))
def lm64(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    """Every family in float64, where two ways to the same number agree to 1e-10."""
    return tiny_factory(request.param, dtype=torch.float64)


class TestApplied:
    def test_adds_exactly_the_delta(self, lm64: LanguageModel, guard: Callable[[LanguageModel], None]) -> None:
        guard(lm64)
        for delta in many_deltas(lm64):
            before = {name: weight_in_out(lm64, name).clone() for name in delta.terms}
            with applied(lm64, delta):
                for name, term in delta.terms.items():
                    assert torch.equal(weight_in_out(lm64, name), before[name] + term.dense())
                    assert not torch.equal(weight_in_out(lm64, name), before[name])

    def test_low_rank_is_left_times_right_in_the_modules_own_terms(self, lm64: LanguageModel) -> None:
        """y(x) changes by (x · left) right, whatever way the family stores its weight."""
        name = memory(lm64, 2)
        term = low_rank(lm64, name)
        module = lm64.module(lm64.architecture.mlp_out_name(2))
        x = torch.randn(1, 5, term.left.shape[0], dtype=lm64.dtype)
        clean = module(x)
        with applied(lm64, WeightDelta(terms={name: term})):
            torch.testing.assert_close(module(x) - clean, (x @ term.left) @ term.right.T)

    def test_changes_the_output_and_takes_it_back(self, tiny_lm: LanguageModel) -> None:
        ids = some_ids(tiny_lm, 2)
        clean = run(tiny_lm, ids)
        with applied(tiny_lm, many_deltas(tiny_lm)[0]):
            assert (run(tiny_lm, ids) - clean).abs().max() > 1e-3
        assert torch.equal(run(tiny_lm, ids), clean)

    def test_weights_are_bit_equal_after_an_error_inside(
        self, tiny_lm: LanguageModel, guard: Callable[[LanguageModel], None]
    ) -> None:
        guard(tiny_lm)
        with pytest.raises(ZeroDivisionError), applied(tiny_lm, many_deltas(tiny_lm)[2]):
            raise ZeroDivisionError

    def test_nests(self, tiny_lm: LanguageModel, guard: Callable[[LanguageModel], None]) -> None:
        guard(tiny_lm)
        name = memory(tiny_lm, 1)
        one, two = WeightDelta(terms={name: low_rank(tiny_lm, name)}), WeightDelta(terms={name: dense(tiny_lm, name)})
        with applied(tiny_lm, one):
            outer = weight_in_out(tiny_lm, name).clone()
            with applied(tiny_lm, two):
                assert torch.equal(weight_in_out(tiny_lm, name), outer + two.terms[name].dense())
            assert torch.equal(weight_in_out(tiny_lm, name), outer)

    def test_huge_deltas_leave_no_rounding_behind(
        self, tiny_gpt2: LanguageModel, guard: Callable[[LanguageModel], None]
    ) -> None:
        """Subtracting 1e8 again would: the weights are copied back."""
        guard(tiny_gpt2)
        name = memory(tiny_gpt2, 1)
        huge = Dense(value=torch.full_like(weight_in_out(tiny_gpt2, name), 1e8))
        assert not torch.equal((weight_in_out(tiny_gpt2, name) + 1e8) - 1e8, weight_in_out(tiny_gpt2, name))
        with applied(tiny_gpt2, WeightDelta(terms={name: huge})):
            pass

    def test_a_bad_term_leaves_the_good_ones_unapplied(
        self, tiny_lm: LanguageModel, guard: Callable[[LanguageModel], None]
    ) -> None:
        guard(tiny_lm)
        name = memory(tiny_lm, 1)
        good = {name: low_rank(tiny_lm, name)}
        with (
            pytest.raises(KeyError, match=r"no parameter 'nowhere\.weight'"),
            applied(tiny_lm, WeightDelta(terms=good | {"nowhere.weight": dense(tiny_lm, name)})),
        ):
            pytest.fail("entered")
        transposed = Dense(value=dense(tiny_lm, memory(tiny_lm, 2)).value.T)
        with (
            pytest.raises(ValueError, match=r"a delta of shape \(32, 64\) for a parameter of \(64, 32\)"),
            applied(tiny_lm, WeightDelta(terms=good | {memory(tiny_lm, 2): transposed})),
        ):
            pytest.fail("entered")

    def test_output_heads_and_embeddings_too(self, lm64: LanguageModel) -> None:
        """The head is a Linear and the embedding a table in every family, whatever the blocks are made of."""
        row = lm64.architecture
        embedding = f"{row.embedding}.weight"
        assert weight_in_out(lm64, embedding).shape == (lm64.model.config.vocab_size, lm64.hidden_size)
        if lm64.model.config.tie_word_embeddings:
            return
        head = next(name for name, p in lm64.model.named_parameters() if p is lm64.model.get_output_embeddings().weight)
        states = torch.randn(1, 2, lm64.hidden_size, dtype=lm64.dtype)
        term = low_rank(lm64, head)
        clean = lm64.model.get_output_embeddings()(states)
        with applied(lm64, WeightDelta(terms={head: term})):
            changed = lm64.model.get_output_embeddings()(states)
        torch.testing.assert_close(changed - clean, (states @ term.left) @ term.right.T)

    def test_half_precision_is_rounded_once(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("gpt2", dtype=torch.bfloat16)
        name = memory(lm, 1)
        delta = Dense(value=torch.randn(64, 32) * 1e-3)
        before = weight_in_out(lm, name).clone()
        with applied(lm, WeightDelta(terms={name: delta})):
            assert torch.equal(weight_in_out(lm, name), (before.float() + delta.value).bfloat16())
        assert torch.equal(weight_in_out(lm, name), before)
