"""`applied` adds exactly ΔW and takes exactly it back; `overlay` is many applied deltas side by side."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from conftest import FAMILIES
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from romexp.lm.apply_delta import applied, overlay, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, LowRank, Term, WeightDelta

SCALE = 0.3


@pytest.fixture(scope="module", params=list(FAMILIES))
def lm64(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    """Every family in float64, where two ways to the same number agree to 1e-10."""
    return tiny_factory(request.param, dtype=torch.float64)


def low_rank(lm: LanguageModel, name: str, rank: int = 1) -> LowRank:
    n_in, n_out = weight_in_out(lm, name).shape
    return LowRank(
        left=torch.randn(n_in, rank, dtype=lm.dtype) * SCALE, right=torch.randn(n_out, rank, dtype=lm.dtype) * SCALE
    )


def dense(lm: LanguageModel, name: str) -> Dense:
    return Dense(value=torch.randn(weight_in_out(lm, name).shape, dtype=lm.dtype) * SCALE)


def memory(lm: LanguageModel, layer: int) -> str:
    return f"{lm.architecture.mlp_out_name(layer)}.weight"


def a_bias(lm: LanguageModel, layer: int) -> str | None:
    """A bias inside the block, if the family has any."""
    candidates = (lm.architecture.mlp_out_name(layer), *lm.architecture.attn_qkv_names(layer))
    names = dict(lm.model.named_parameters())
    return next((f"{path}.bias" for path in candidates if f"{path}.bias" in names), None)


def many_deltas(lm: LanguageModel) -> list[WeightDelta]:
    """Every kind of term, alone and together, on one layer and on several."""
    first_qkv = f"{lm.architecture.attn_qkv_names(2)[0]}.weight"
    mlp_in = f"{lm.architecture.mlp_in_name(0)}.weight"
    full: dict[str, Term] = {memory(lm, 1): dense(lm, memory(lm, 1))}
    if bias := a_bias(lm, 1):
        full[bias] = dense(lm, bias)
    return [
        WeightDelta(terms={memory(lm, 1): low_rank(lm, memory(lm, 1))}),
        WeightDelta(
            terms={memory(lm, 1): low_rank(lm, memory(lm, 1), 3), memory(lm, 3): low_rank(lm, memory(lm, 3), 2)}
        ),
        WeightDelta(terms=full),
        WeightDelta(terms={mlp_in: low_rank(lm, mlp_in, 2), first_qkv: dense(lm, first_qkv)}),
        WeightDelta(terms={memory(lm, 1): dense(lm, memory(lm, 1))}),
        WeightDelta(),
    ]


def some_ids(lm: LanguageModel, rows: int, length: int = 7) -> torch.Tensor:
    return torch.randint(2, lm.model.config.vocab_size, (rows, length))


@torch.no_grad()
def run(lm: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    return lm.model(input_ids=ids).logits


def one_by_one(lm: LanguageModel, deltas: Sequence[WeightDelta | None], ids: torch.Tensor) -> torch.Tensor:
    """What `overlay` should give: each row alone through its own model, edited in its weights."""
    out = []
    for delta, text in zip(deltas, ids, strict=True):
        with applied(lm, delta or WeightDelta()):
            out.append(run(lm, text[None])[0])
    return torch.stack(out)


def chosen(deltas: Sequence[WeightDelta], rows: Sequence[int | None]) -> list[WeightDelta | None]:
    """The delta of each row, named by its position; rows with the same position share one object."""
    return [None if row is None else deltas[row] for row in rows]


@contextmanager
def result_sizes() -> Iterator[list[int]]:
    """Collects how many elements every tensor has that an operation inside the context returns.

    A view counts as what it looks at: an expanded one takes no memory of its own.
    """
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            sizes.extend(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in tensors)
            return result

    with Watch():
        yield sizes


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


class TestMemory:
    """What many rows have is held once: an evaluator gives one delta to some 50 rows, and those of KE and MEND have
    ranks near the width.
    """

    ROWS, RANK, LENGTH = 50, 1000, 2

    @pytest.fixture
    def lm(self, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
        return tiny_factory("gpt2", dtype=torch.float64)

    def largest(self, lm: LanguageModel, rows: Sequence[WeightDelta | None]) -> int:
        """The largest tensor of a forward pass, which must give what the written weights give."""
        ids = some_ids(lm, len(rows), self.LENGTH)
        with result_sizes() as sizes, overlay(lm, rows):
            together = run(lm, ids)
        torch.testing.assert_close(together, one_by_one(lm, rows, ids), atol=1e-9, rtol=1e-9)
        return max(sizes)

    def test_a_delta_of_many_rows_is_never_copied_for_each(self, lm: LanguageModel) -> None:
        """A copy for each row would have rows × in × rank elements, 3.2 million here."""
        name = memory(lm, 1)
        copies = self.ROWS * weight_in_out(lm, name).shape[0] * self.RANK
        one, other = (WeightDelta(terms={name: low_rank(lm, name, self.RANK)}) for _ in range(2))
        assert self.largest(lm, [one] * self.ROWS) < copies / 10
        mixed: list[WeightDelta | None] = [one, other] * (self.ROWS // 2) + [None]
        random.shuffle(mixed)
        assert self.largest(lm, mixed) < copies / 10
        # A control: deltas of which each row has its own are stacked, and that is seen.
        own = [one.to(device="cpu") for _ in range(self.ROWS)]
        assert self.largest(lm, own) >= copies

    def test_a_dense_term_of_many_rows_is_never_copied_for_each(self, lm: LanguageModel) -> None:
        name = memory(lm, 1)
        delta = WeightDelta(terms={name: dense(lm, name)})
        copies = self.ROWS * weight_in_out(lm, name).numel()
        assert self.largest(lm, [delta, None] + [delta] * (self.ROWS - 1)) < copies
