"""Integrated gradients over scaled copies of one token are those of one whole pass a layer, point and token."""

from __future__ import annotations

from collections.abc import Callable

import naive_kn
import pytest
import torch
from conftest import FAMILIES
from edit_cases import REQUESTS, relative

from romexp.editors.kn import attribution
from romexp.editors.kn.attribution import Attribution, Text, attribute
from romexp.errors import RecordError
from romexp.lm.model import LanguageModel

STEPS = 4


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


def texts_of(lm: LanguageModel) -> list[Text]:
    """Prompts of unequal length, the shortest a single token; ground truths of one and of more tokens."""
    texts = [
        Text(
            ids=tuple(naive_kn.tokens(lm, request.text)),
            targets=tuple(naive_kn.tokens(lm, request.target_true, special=False)),
        )
        for request in REQUESTS
    ]
    return [*texts, Text(ids=texts[0].ids[:1], targets=texts[1].targets[:1])]


def assert_same(some: list[Attribution], others: list[Attribution]) -> None:
    for one, other in zip(some, others, strict=True):
        assert relative(one.scores, other.scores) < 1e-4
        assert one.probability == pytest.approx(other.probability, rel=1e-4)
        assert one.prediction == other.prediction


class TestAgainstWholePasses:
    def test_scores_of_every_layer_in_every_family(self, lm: LanguageModel) -> None:
        texts = texts_of(lm)
        found = attribute(lm, texts, steps=STEPS)
        for i in (0, 3, 4):
            expected = naive_kn.scores(lm, texts[i].ids, texts[i].targets, steps=STEPS)
            assert expected.shape == (lm.n_layers, 64)
            assert all(layer.abs().max() > 0 for layer in expected)
            for layer in range(lm.n_layers):
                assert relative(found[i].scores[layer], expected[layer]) < 1e-4
            assert relative(found[(i + 1) % 5].scores, expected) > 0.1
            following = naive_kn.next_logits(lm, texts[i].ids).softmax(dim=-1)
            assert found[i].probability == pytest.approx(float(following[list(texts[i].targets)].mean()), rel=1e-4)
            assert found[i].prediction == int(following.argmax())

    def test_a_gradient_is_the_slope_of_the_probability(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        """Neuron by neuron in float64, by moving one value at a time: no automatic differentiation is trusted."""
        lm = tiny_factory("gpt2", dtype=torch.float64)
        text = texts_of(lm)[2]
        layer, step = 1, 1e-5
        own = naive_kn.activation(lm, layer, text.ids)
        (found,) = attribute(lm, [text], steps=2)
        for neuron in (0, 17, 63):
            unit = torch.zeros_like(own).index_fill(0, torch.tensor([neuron]), step)
            slope = sum(
                float(naive_kn.probability_with(lm, layer, text.ids, token, alpha * own + sign * unit)) * sign
                for alpha in (0.0, 1.0)
                for token in text.targets
                for sign in (1, -1)
            ) / (2 * step * len(text.targets))
            assert float(found.scores[layer, neuron]) == pytest.approx(slope * float(own[neuron]) / 2, rel=1e-4)

    def test_a_layers_scores_add_up_to_what_it_contributes(self, lm: LanguageModel) -> None:
        """Completeness of integrated gradients: with many points the sum is p(own values) - p(zeros)."""
        text = texts_of(lm)[2]
        (found,) = attribute(lm, [text], steps=300)
        for layer in range(lm.n_layers):
            own = naive_kn.activation(lm, layer, text.ids)
            with torch.no_grad():
                with_it, without = (
                    sum(float(naive_kn.probability_with(lm, layer, text.ids, token, value)) for token in text.targets)
                    for value in (own, torch.zeros_like(own))
                )
            change = (with_it - without) / len(text.targets)
            assert float(found.scores[layer].sum()) == pytest.approx(change, rel=0.05, abs=2e-5)


class TestBatches:
    def test_a_batch_is_each_text_alone(self, lm: LanguageModel) -> None:
        texts = texts_of(lm)
        together = attribute(lm, texts, steps=STEPS)
        assert_same(together, [attribute(lm, [text], steps=STEPS)[0] for text in texts])
        assert_same(together, attribute(lm, texts[::-1], steps=STEPS)[::-1])

    @pytest.mark.parametrize("budget", [1, 10, 100_000])
    def test_layers_side_by_side_are_each_layer_alone(
        self, tiny_lm: LanguageModel, budget: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = texts_of(tiny_lm)
        monkeypatch.setattr(attribution, "ROW_COLUMNS", 1)
        alone = attribute(tiny_lm, texts, steps=STEPS)
        monkeypatch.setattr(attribution, "ROW_COLUMNS", 3 * STEPS)
        assert_same(attribute(tiny_lm, texts, steps=STEPS, max_batch_tokens=budget), alone)

    @pytest.mark.parametrize(
        ("n_texts", "columns", "expected"),
        [(1, STEPS, [1, 2, 3, 4]), (4, STEPS, [1, 2, 3, 4]), (4, 4 * STEPS, [1, 2, 2, 2])],
        ids=["one layer at a time", "four texts at once", "four layers at once"],
    )
    def test_runs_only_the_blocks_above_what_is_scaled(
        self, tiny_gpt2: LanguageModel, n_texts: int, columns: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Passes through each block: one over the prompts, then one a layer below it, or one for all of them."""
        monkeypatch.setattr(attribution, "ROW_COLUMNS", columns)
        seen: list[int] = []
        handles = [
            tiny_gpt2.block(layer).register_forward_hook(lambda *_, layer=layer: seen.append(layer))
            for layer in range(tiny_gpt2.n_layers)
        ]
        try:
            attribute(tiny_gpt2, texts_of(tiny_gpt2)[:1] * n_texts, steps=STEPS)
        finally:
            for handle in handles:
                handle.remove()
        assert [seen.count(layer) for layer in range(tiny_gpt2.n_layers)] == expected


def test_leaves_no_gradients_and_no_weights_changed(lm: LanguageModel, guard: Callable[[LanguageModel], None]) -> None:
    guard(lm)
    with torch.no_grad():  # as an experiment may call it
        (found, *_) = attribute(lm, texts_of(lm), steps=STEPS)
    assert not found.scores.requires_grad
    assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())


def test_half_precision(tiny_factory: Callable[..., LanguageModel]) -> None:
    half, full = tiny_factory("llama", dtype=torch.bfloat16), tiny_factory("llama")
    (found,) = attribute(half, texts_of(full)[:1], steps=STEPS)
    (expected,) = attribute(full, texts_of(full)[:1], steps=STEPS)
    assert found.scores.dtype == torch.float32
    assert relative(found.scores, expected.scores) < 0.3


def test_a_text_that_is_too_long(tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(RecordError, match="sees 128 at once"):
        attribute(tiny_gpt2, [Text(ids=(5,) * 129, targets=(6,))])


def test_none_at_all(tiny_gpt2: LanguageModel) -> None:
    assert attribute(tiny_gpt2, []) == []
