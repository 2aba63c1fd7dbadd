"""Many edited models in one batch: each row is its own edited model, and nothing is copied for each row."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import torch
from conftest import FAMILIES
from delta_cases import dense, low_rank, many_deltas, memory, one_by_one, run, some_ids
from torch.func import functional_call

from romexp.lm.apply_delta import applied, overlay, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, LowRank, Term, WeightDelta


@pytest.fixture(scope="module", params=list(FAMILIES))
def lm64(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    """Every family in float64, where two ways to the same number agree to 1e-10."""
    return tiny_factory(request.param, dtype=torch.float64)


def chosen(deltas: Sequence[WeightDelta], rows: Sequence[int | None]) -> list[WeightDelta | None]:
    """The delta of each row, named by its position; rows with the same position share one object."""
    return [None if row is None else deltas[row] for row in rows]


class TestOverlay:
    ROWS = (0, None, 1, 0, 2, 3, None, 4, 2, 5)

    def test_each_row_is_its_own_edited_model(
        self, lm64: LanguageModel, guard: Callable[[LanguageModel], None]
    ) -> None:
        guard(lm64)
        deltas, ids = chosen(many_deltas(lm64), self.ROWS), some_ids(lm64, len(self.ROWS))
        expected = one_by_one(lm64, deltas, ids)
        with overlay(lm64, deltas):
            together = run(lm64, ids)
        torch.testing.assert_close(together, expected, atol=1e-10, rtol=1e-10)
        clean = run(lm64, ids)
        moved = (together - clean).abs().amax(dim=(1, 2))
        for row, distance in zip(self.ROWS, moved.tolist(), strict=True):
            assert distance == 0 if row in (None, 5) else distance > 1e-3

    @pytest.mark.parametrize("rows", [(0,), (1, 1, 1), (2, 4), (4, 2), (3, 0, 1), (None, None), (5, 5)])
    def test_short_batches(self, tiny_factory: Callable[..., LanguageModel], rows: tuple[int | None, ...]) -> None:
        """Among them: every row edited (no gathering), one delta for all, none at all."""
        lm = tiny_factory("gptj", dtype=torch.float64)
        deltas, ids = chosen(many_deltas(lm), rows), some_ids(lm, len(rows))
        with overlay(lm, deltas):
            together = run(lm, ids)
        torch.testing.assert_close(together, one_by_one(lm, deltas, ids), atol=1e-10, rtol=1e-10)

    @pytest.mark.parametrize("family", ["gpt2", "llama"])
    def test_random_mixtures(self, tiny_factory: Callable[..., LanguageModel], family: str) -> None:
        """Deltas of one row and of many, of equal and of different ranks, dense ones and biases, None between them.

        Deltas of one rank that equally many rows have are worked out together, so counts and orders are drawn.
        """
        lm = tiny_factory(family, dtype=torch.float64)
        name = memory(lm, 1)
        alike = [WeightDelta(terms={name: low_rank(lm, name, rank)}) for rank in (1, 1, 1, 2, 2)]
        deltas = [*many_deltas(lm), *alike]
        shared = 0
        for _ in range(30):
            picked = random.sample(deltas, random.randint(1, 6))
            rows: list[WeightDelta | None] = [delta for delta in picked for _ in range(random.choice((1, 1, 2, 3)))]
            rows += [None] * random.randint(0, 2)
            random.shuffle(rows)
            shared += len({id(row) for row in rows}) < len(rows)
            ids = some_ids(lm, len(rows), length=4)
            with overlay(lm, rows):
                together = run(lm, ids)
            torch.testing.assert_close(together, one_by_one(lm, rows, ids), atol=1e-10, rtol=1e-10)
        assert shared > 10

    def test_deltas_that_are_equal_but_not_one_object(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        """Only a delta that is the same object is shared; the result does not depend on it."""
        lm = tiny_factory("gpt2", dtype=torch.float64)
        one = many_deltas(lm)[1]
        again = one.to(device="cpu")
        ids = some_ids(lm, 5)
        with overlay(lm, [one, again, None, one, again]):
            together = run(lm, ids)
        torch.testing.assert_close(together, one_by_one(lm, [one, one, None, one, one], ids), atol=1e-10, rtol=1e-10)

    @pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
    def test_a_diverged_delta_leaves_the_other_rows_alone(self, tiny_gpt2: LanguageModel, bad: float) -> None:
        """Low-rank, dense and bias terms with inf or NaN: the rows of the other deltas and of None stay bit-equal."""
        name = memory(tiny_gpt2, 1)
        bias = name.replace("weight", "bias")

        def one_of_each() -> list[WeightDelta]:
            low, high = low_rank(tiny_gpt2, name), low_rank(tiny_gpt2, name)
            terms = ({name: low}, {name: high}, {name: dense(tiny_gpt2, name)}, {bias: dense(tiny_gpt2, bias)})
            return [WeightDelta(terms=each) for each in terms]

        good, harmless = one_of_each(), one_of_each()
        low = low_rank(tiny_gpt2, name)  # of one rank with the good ones, so that one product serves them all
        diverged = [
            WeightDelta(terms={name: LowRank(left=torch.full_like(low.left, bad), right=low.right)}),
            WeightDelta(terms={name: LowRank(left=low.left, right=torch.full_like(low.right, bad))}),
            WeightDelta(terms={name: Dense(value=torch.full((64, 32), bad))}),
            WeightDelta(terms={bias: Dense(value=torch.full((32,), bad))}),
        ]
        ids = some_ids(tiny_gpt2, 10)
        outputs = []
        for others in (harmless, diverged):
            with overlay(
                tiny_gpt2, [*(delta for pair in zip(good, others, strict=True) for delta in pair), None, None]
            ):
                outputs.append(run(tiny_gpt2, ids))
        finite, mixed = outputs
        assert finite.isfinite().all()
        assert not mixed[1:8:2].isfinite().flatten(1).all(dim=1).any(), "the diverged rows must show it"
        untouched = [0, 2, 4, 6, 8, 9]
        assert torch.equal(mixed[untouched], finite[untouched])

    def test_over_applied_weights_is_refused(self, tiny_gpt2: LanguageModel) -> None:
        """An edit would be added twice. Rows without an edit may run, and afterwards all is as it was."""
        first, second, *_, empty = many_deltas(tiny_gpt2)
        ids = some_ids(tiny_gpt2, 1)
        with applied(tiny_gpt2, first):
            written = run(tiny_gpt2, ids)
            with applied(tiny_gpt2, second):
                pass
            for delta in (first, second):
                with pytest.raises(ValueError, match="hold an edit already"), overlay(tiny_gpt2, [delta]):
                    pytest.fail("entered")
            for nothing in (None, empty):
                with overlay(tiny_gpt2, [nothing]):
                    assert torch.equal(run(tiny_gpt2, ids), written)
        with pytest.raises(ZeroDivisionError), applied(tiny_gpt2, first):
            raise ZeroDivisionError
        with applied(tiny_gpt2, empty), overlay(tiny_gpt2, [first]):
            torch.testing.assert_close(run(tiny_gpt2, ids), written, atol=1e-4, rtol=1e-4)

    def test_ends_also_after_an_error(self, tiny_gpt2: LanguageModel) -> None:
        deltas, ids = many_deltas(tiny_gpt2), some_ids(tiny_gpt2, 1)
        clean = run(tiny_gpt2, ids)
        with pytest.raises(ZeroDivisionError), overlay(tiny_gpt2, deltas[:1]):
            raise ZeroDivisionError
        assert torch.equal(run(tiny_gpt2, ids), clean)

    def test_gradients_reach_the_deltas(self, lm64: LanguageModel) -> None:
        """They are those of W + ΔW; a delta that serves two rows gets the sum of both; the weights get none."""
        name = memory(lm64, 1)
        one, two = low_rank(lm64, name), dense(lm64, name)
        leaves = [x.requires_grad_() for x in (one.left, one.right, two.value)]
        first, second = WeightDelta(terms={name: one}), WeightDelta(terms={name: two})
        ids = some_ids(lm64, 4)

        def loss(logits: torch.Tensor) -> torch.Tensor:
            return logits.log_softmax(-1)[..., 7].sum()

        with overlay(lm64, [first, None, second, first]):
            got = torch.autograd.grad(loss(lm64.model(input_ids=ids).logits), leaves)

        base, transposed = weight_in_out(lm64, name), lm64.architecture.weight_layout == "out_in"

        def edited(term: Term, text: torch.Tensor) -> torch.Tensor:
            weight = base + term.dense()
            weights = {name: weight.T if transposed else weight}
            return loss(functional_call(lm64.model, weights, kwargs={"input_ids": text[None]}).logits)

        expected = torch.autograd.grad(edited(one, ids[0]) + edited(two, ids[2]) + edited(one, ids[3]), leaves)
        for mine, theirs in zip(got, expected, strict=True):
            assert theirs.abs().max() > 1e-3
            torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9)
        assert not lm64.parameter(name).requires_grad

    def test_half_precision(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("llama", dtype=torch.bfloat16)
        first, _, third, *_ = [d.to(device="cpu", dtype=torch.float32) for d in many_deltas(lm)]
        deltas, ids = [first, None, third], some_ids(lm, 3)
        clean = run(lm, ids)
        with overlay(lm, deltas):
            together = run(lm, ids)
        assert together.dtype == torch.bfloat16
        assert torch.equal(together[1], clean[1])
        expected = one_by_one(lm, deltas, ids)
        error, effect = (together - expected).float().norm(), (expected - clean).float().norm()
        assert error < 0.1 * effect

    def test_a_batch_of_another_size_is_refused(self, tiny_gpt2: LanguageModel) -> None:
        deltas = many_deltas(tiny_gpt2)[:2]
        with overlay(tiny_gpt2, deltas), pytest.raises(ValueError, match=r"batch of 2 .*\(3,"):
            run(tiny_gpt2, some_ids(tiny_gpt2, 3))

    def test_only_linear_maps(self, tiny_gpt2: LanguageModel) -> None:
        for name, error in (
            ("transformer.wte.weight", ValueError),
            ("transformer.h.0.ln_1.weight", ValueError),
            ("transformer.h.0.mlp.nothing.weight", KeyError),
        ):
            delta = WeightDelta(terms={name: Dense(value=torch.zeros(32))})
            with pytest.raises(error, match=name), overlay(tiny_gpt2, [delta]):
                pytest.fail("entered")

    def test_a_term_of_another_shape_is_refused_before_the_forward(self, tiny_lm: LanguageModel) -> None:
        name = memory(tiny_lm, 1)
        delta = WeightDelta(terms={name: Dense(value=torch.zeros(32, 64))})
        with pytest.raises(ValueError, match=r"\(32, 64\)"), overlay(tiny_lm, [delta]):
            pytest.fail("entered")
