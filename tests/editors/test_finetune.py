"""Fine-tuning many copies of a map side by side is torch's Adam on each copy alone, within its bound."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import naive
import pytest
import torch
from conftest import FAMILIES
from edit_cases import REQUESTS, beside_a_bad_request, no_moment, relative

from romexp.editors.base import Edit, Resources
from romexp.editors.finetune import FineTune
from romexp.errors import ConfigError
from romexp.facts import EditRequest
from romexp.lm.apply_delta import applied, stored_transposed
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import score

FT = FineTune(layer=1, num_steps=8)
RESOURCES = Resources(second_moment=no_moment)
ONE_TOKEN = replace(REQUESTS[2], target_new="Paris")


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


def value(edit: Edit, name: str) -> torch.Tensor:
    """A dense term as (in × out), or (out)."""
    return edit.delta.terms[name].dense()


def furthest(edits: list[Edit], others: list[Edit]) -> float:
    """The largest relative distance over all requests and parameters."""
    return max(
        relative(value(one, name), value(other, name))
        for one, other in zip(edits, others, strict=True)
        for name in one.delta.terms
    )


def assert_naive(lm: LanguageModel, edit: Edit, request: EditRequest, tuner: FineTune) -> None:
    """Equal to torch.optim.Adam on the real weights of a copy.

    Measured 5e-5: Adam makes full steps of the smallest gradients, so a few entries follow rounding.
    """
    names = set(edit.delta.terms)
    plain, losses = naive.finetune(
        lm,
        request,
        trained=lambda name: name in names,
        lr=tuner.lr,
        steps=tuner.num_steps,
        bound=tuner.norm_constraint,
        threshold=tuner.loss_threshold,
        teacher_forcing=tuner.teacher_forcing,
    )
    assert edit.diagnostics["loss"] == pytest.approx(losses, abs=1e-5)
    for name, change in plain.items():
        mine = value(edit, name).T if stored_transposed(lm, name) else value(edit, name)
        assert relative(mine, change) < 1e-3
        assert change.abs().max() > 1e-3


class TestAgainstThePlainLoop:
    @pytest.mark.parametrize(
        "changes",
        [{}, {"norm_constraint": 1e-3, "layer": 0}, {"teacher_forcing": True, "layer": 3}],
        ids=["FT", "FT+L", "teacher forcing"],
    )
    def test_every_family(self, lm: LanguageModel, changes: dict[str, object]) -> None:
        tuner = replace(FT, **changes)  # type: ignore[arg-type]
        edits = tuner(lm, REQUESTS, resources=RESOURCES)
        for edit, request in zip(edits[:2], REQUESTS, strict=False):
            assert_naive(lm, edit, request, tuner)

    def test_attention(self, lm: LanguageModel) -> None:
        """AttnEdit on fused (GPT-2, NeoX) and separate maps. Without biases: a key bias shifts all scores of a query
        alike, so its true gradient is zero, and Adam scales whatever rounding leaves of it to full steps."""
        tuner = replace(FT, module="attn_qkv", lr=1e-3, norm_constraint=5e-3, train_bias=False)
        edits = tuner(lm, REQUESTS[2:], resources=RESOURCES)
        expected = {f"{name}.weight" for name in lm.architecture.attn_qkv_names(1)}
        assert len(expected) == (1 if lm.architecture.family in ("gpt2", "gpt_neox") else 3)
        for edit, request in zip(edits, REQUESTS[2:], strict=True):
            assert set(edit.delta.terms) == expected
            assert_naive(lm, edit, request, tuner)

    def test_attention_with_its_bias(self, tiny_gpt2: LanguageModel) -> None:
        """Queries' and values' biases are trained; what the keys' do (columns 32 to 64) has no effect."""
        tuner = replace(FT, module="attn_qkv")
        (edit,) = tuner(tiny_gpt2, [REQUESTS[2]], resources=RESOURCES)
        weight, bias = "transformer.h.1.attn.c_attn.weight", "transformer.h.1.attn.c_attn.bias"
        assert set(edit.delta.terms) == {weight, bias}
        plain, losses = naive.finetune(tiny_gpt2, REQUESTS[2], trained=lambda name: name in (weight, bias), steps=8)
        assert edit.diagnostics["loss"] == pytest.approx(losses, abs=1e-5)
        used = [*range(32), *range(64, 96)]
        torch.testing.assert_close(value(edit, bias)[used], plain[bias][used], atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(value(edit, weight), plain[weight], atol=1e-5, rtol=1e-3)


class TestTheEdit:
    def test_makes_the_target_likelier_and_leaves_the_model(
        self, lm: LanguageModel, guard: Callable[[LanguageModel], None]
    ) -> None:
        guard(lm)
        tuner = replace(FT, num_steps=12, lr=5e-3)
        edits = tuner(lm, [ONE_TOKEN, REQUESTS[0]], resources=RESOURCES)
        query = Query(prompt=ONE_TOKEN.text, targets=(ONE_TOKEN.target_new,))
        scores = score(lm, [query] * 3, deltas=[None, *(edit.delta for edit in edits)])
        before, after, other = (s.nll for (s,) in scores)
        assert before == pytest.approx(edits[0].diagnostics["loss"][0], abs=1e-5)
        assert after < before - 1
        assert after < other - 1
        with applied(lm, edits[0].delta):
            ((written,),) = score(lm, [query])
        assert written.nll == pytest.approx(after, abs=1e-4)

    def test_stays_within_its_bound_and_reaches_it(self, tiny_lm: LanguageModel) -> None:
        """Eight steps of 5e-4 go up to 4e-3 when nothing holds them."""
        free = FT(tiny_lm, REQUESTS, resources=RESOURCES)
        bounded = replace(FT, norm_constraint=1e-3)(tiny_lm, REQUESTS, resources=RESOURCES)
        for one, other in zip(bounded, free, strict=True):
            for name in one.delta.terms:
                assert float(value(one, name).abs().max()) == pytest.approx(1e-3, rel=1e-6)
                assert (value(one, name).abs() > 0.99e-3).float().mean() > 0.1
                assert value(other, name).abs().max() > 2e-3

    def test_a_wide_bound_is_none(self, tiny_gpt2: LanguageModel) -> None:
        free, wide = (
            replace(FT, norm_constraint=bound)(tiny_gpt2, REQUESTS, resources=RESOURCES) for bound in (None, 1.0)
        )
        assert furthest(wide, free) == 0

    def test_trains_weight_and_bias_or_the_weight_alone(self, lm: LanguageModel) -> None:
        module = lm.architecture.mlp_out_name(1)
        has_bias = getattr(lm.module(module), "bias", None) is not None
        assert has_bias == (lm.architecture.family in ("gpt2", "gptj", "gpt_neox"))
        both, weight = (
            replace(FT, train_bias=train)(lm, REQUESTS[:1], resources=RESOURCES)[0] for train in (True, False)
        )
        assert set(weight.delta.terms) == {f"{module}.weight"}
        assert set(both.delta.terms) == {f"{module}.weight"} | ({f"{module}.bias"} if has_bias else set())
        if has_bias:
            assert value(both, f"{module}.bias").abs().max() > 1e-3
            assert relative(value(weight, f"{module}.weight"), value(both, f"{module}.weight")) > 1e-4


class TestTeacherForcing:
    def test_is_nothing_for_a_target_of_one_token(self, tiny_lm: LanguageModel) -> None:
        on, off = (
            replace(FT, teacher_forcing=forced)(tiny_lm, [ONE_TOKEN], resources=RESOURCES) for forced in (True, False)
        )
        assert on[0].diagnostics["loss"] == pytest.approx(off[0].diagnostics["loss"], abs=1e-6)
        assert furthest(on, off) < 1e-4

    def test_feeds_the_targets_earlier_tokens(self, tiny_lm: LanguageModel) -> None:
        """On: the loss is that of scoring. Off: every token is scored where the first is predicted."""
        request = REQUESTS[0]
        on, off = (
            replace(FT, teacher_forcing=forced)(tiny_lm, [request], resources=RESOURCES)[0] for forced in (True, False)
        )
        ((scored,),) = score(tiny_lm, [Query(prompt=request.text, targets=(request.target_new,))])
        assert len(scored.token_ids) > 1
        assert on.diagnostics["loss"][0] == pytest.approx(scored.nll, abs=1e-5)
        last = naive.all_logits(tiny_lm, naive.tokens(tiny_lm, request.text))[-1].log_softmax(-1)
        assert off.diagnostics["loss"][0] == pytest.approx(-float(last[list(scored.token_ids)].mean()), abs=1e-5)
        assert furthest([on], [off]) > 0.1


class TestBatches:
    @pytest.mark.parametrize("teacher_forcing", [True, False])
    def test_a_batch_is_each_request_alone(self, tiny_lm: LanguageModel, teacher_forcing: bool) -> None:
        """Measured 2e-5."""
        tuner = replace(FT, norm_constraint=2e-3, teacher_forcing=teacher_forcing)
        order = random.sample(range(len(REQUESTS)), 3)
        together = tuner(tiny_lm, [REQUESTS[i] for i in order], resources=RESOURCES)
        alone = [tuner(tiny_lm, [REQUESTS[i]], resources=RESOURCES)[0] for i in order]
        assert furthest(together, alone) < 1e-3
        assert furthest(together, alone[1:] + alone[:1]) > 0.1

    def test_each_request_stops_by_itself(self, tiny_lm: LanguageModel) -> None:
        tuner = replace(FT, num_steps=16, lr=1e-2, loss_threshold=2.5)
        requests = [replace(request, target_new="Paris") for request in REQUESTS]
        together = tuner(tiny_lm, requests, resources=RESOURCES)
        alone = [tuner(tiny_lm, [request], resources=RESOURCES)[0] for request in requests]
        passes = [len(edit.diagnostics["loss"]) for edit in together]
        assert len(set(passes)) > 1
        assert passes == [len(edit.diagnostics["loss"]) for edit in alone]
        assert furthest(together, alone) < 1e-3
        for edit in together:
            *earlier, last = edit.diagnostics["loss"]
            assert all(loss >= 2.5 for loss in earlier)
            assert last < 2.5 or len(earlier) == 15

    def test_a_loss_that_is_low_enough_changes_nothing(self, tiny_gpt2: LanguageModel) -> None:
        (edit,) = replace(FT, loss_threshold=1000.0)(tiny_gpt2, REQUESTS[:1], resources=RESOURCES)
        assert len(edit.diagnostics["loss"]) == 1
        assert edit.delta.norm() == 0

    def test_a_long_prompt_does_not_make_all_others_long(self, tiny_gpt2: LanguageModel) -> None:
        """Texts of like length run together; each gets the edit that it gets alone."""
        long = replace(ONE_TOKEN, prompt="{} was" + " the x" * 40)
        tokens: list[int] = []
        handle = tiny_gpt2.block(3).register_forward_pre_hook(
            lambda _m, args: tokens.append(args[0].shape[0] * args[0].shape[1])
        )
        try:
            edits = replace(FT, num_steps=2)(tiny_gpt2, [long, *[ONE_TOKEN] * 9], resources=RESOURCES)
        finally:
            handle.remove()
        longest, short = (len(naive.tokens(tiny_gpt2, request.text)) for request in (long, ONE_TOKEN))
        assert tokens == [9 * short, longest] * 2
        alone = replace(FT, num_steps=2)(tiny_gpt2, [long], resources=RESOURCES)
        assert furthest(edits[:1], alone) < 1e-3

    def test_none_at_all(self, tiny_gpt2: LanguageModel) -> None:
        assert FT(tiny_gpt2, [], resources=RESOURCES) == []

    @pytest.mark.parametrize(
        ("changes", "field", "message"),
        [
            ({"target_new": " "}, "target_new", "the new target is empty"),
            ({"prompt": "{}", "subject": ""}, "prompt", "the prompt has no token"),
            ({"prompt": "{} was" + " the x" * 70}, "prompt", "sees 128 at once"),
        ],
    )
    def test_an_error_stands_in_the_bad_requests_place(
        self, tiny_gpt2: LanguageModel, changes: dict[str, str], field: str, message: str
    ) -> None:
        bad = replace(REQUESTS[2], **changes)
        error, edits, without = beside_a_bad_request(tiny_gpt2, FT, bad, resources=RESOURCES)
        assert error.field == field
        assert message in error.reason
        assert furthest(edits, without) == 0
        assert furthest(edits, without[1:] + without[:1]) > 0.1  # a control: no edit is another's


class TestUnknownTokens:
    """The reference masks targets' unknown tokens (docs/method.md §4.1)."""

    @pytest.fixture
    def lm(self, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
        lm = tiny_factory("gpt2")
        lm.tokenizer.unk_token = "<|endoftext|>"
        return lm

    def test_do_not_count(self, lm: LanguageModel) -> None:
        with_unknown = replace(ONE_TOKEN, target_new="<|endoftext|>Paris")
        ids = lm.tokenizer(f" {with_unknown.target_new}")["input_ids"]
        assert lm.tokenizer.unk_token_id in ids
        (edit,) = FT(lm, [with_unknown], resources=RESOURCES)
        last = naive.all_logits(lm, naive.tokens(lm, with_unknown.text))[-1].log_softmax(-1)
        counted = [token for token in ids if token != lm.tokenizer.unk_token_id]
        assert edit.diagnostics["loss"][0] == pytest.approx(-float(last[counted].mean()), abs=1e-5)
        assert edit.diagnostics["loss"][0] != pytest.approx(-float(last[ids].mean()), abs=1e-2)


def test_half_precision(tiny_factory: Callable[..., LanguageModel]) -> None:
    half = tiny_factory("llama", dtype=torch.bfloat16)
    tuner = replace(FT, num_steps=25, lr=5e-3)
    (edit,) = tuner(half, [ONE_TOKEN], resources=RESOURCES)
    assert {term.dense().dtype for term in edit.delta.terms.values()} == {torch.float32}
    query = Query(prompt=ONE_TOKEN.text, targets=(ONE_TOKEN.target_new,))
    (before,), (after,) = score(half, [query] * 2, deltas=[None, edit.delta])
    assert after.nll < before.nll - 1


@pytest.mark.parametrize(("field", "value"), [("module", "mlp"), ("norm_constraint", 0.0), ("norm_constraint", -1e-3)])
def test_other_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"editor\.{field}"):
        FineTune(**{field: value})  # type: ignore[arg-type]
