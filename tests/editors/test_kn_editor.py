"""Knowledge Neurons edits the rows of the chosen neurons by the embeddings, as a rank-one delta a layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import naive_kn
import pytest
import torch
from conftest import FAMILIES, assert_weights, weights_of
from edit_cases import REQUESTS
from kn_cases import CONTEXTS, KN, RESOURCES, assert_same, neurons, vector

from romexp.data.counterfact import CounterFact
from romexp.editors.kn.editor import KnowledgeNeurons
from romexp.lm.apply_delta import applied, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import score
from romexp.lm.weight_delta import LowRank
from romexp.minifact import assets


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


def embedding(lm: LanguageModel, *tokens: int) -> torch.Tensor:
    return lm.parameter(f"{lm.architecture.embedding}.weight").detach()[list(tokens)].sum(dim=0)


class TestAgainstThePlainLoop:
    @pytest.mark.parametrize(
        "changes",
        [{}, {"adaptive_threshold": 0.1, "prediction_factor": 0.5, "target_factor": 2.0}],
        ids=["the authors'", "other values"],
    )
    def test_weights_are_those_edited_row_by_row(self, lm: LanguageModel, changes: dict[str, float]) -> None:
        editor = replace(KN, **changes)  # type: ignore[arg-type]
        edits = editor(lm, REQUESTS, resources=RESOURCES)
        settings = {key.removeprefix("adaptive_"): value for key, value in changes.items()}
        for i in (0, 2):
            expected, pairs = naive_kn.edited_weights(lm, REQUESTS[i], steps=KN.steps, **settings)
            names = [f"{lm.architecture.mlp_out_name(layer)}.weight" for layer in range(lm.n_layers)]
            assert neurons(edits[i]) == {(names[layer], neuron) for layer, neuron in pairs}
            assert len(pairs) > 1
            changed = {names[layer] for layer, _ in pairs}
            with applied(lm, edits[i].delta):
                for name in names:
                    torch.testing.assert_close(weight_in_out(lm, name), expected[name], atol=1e-5, rtol=1e-5)
            for name in names:
                assert ((expected[name] - weight_in_out(lm, name)).abs().max() > 1e-2) == (name in changed)

    def test_terms_are_rank_one_and_only_as_many_as_layers_with_neurons(self, tiny_lm: LanguageModel) -> None:
        for edit in KN(tiny_lm, REQUESTS, resources=RESOURCES):
            terms = edit.delta.terms.values()
            assert all(isinstance(term, LowRank) and term.left.shape == (64, 1) for term in terms)
            assert {float(x) for term in terms for x in term.left.flatten()} == {0.0, 1.0}  # type: ignore[union-attr]
            assert edit.diagnostics["neurons"] == len(neurons(edit))
            assert sum(edit.diagnostics["neurons_by_layer"].values()) == len(neurons(edit))
            json.dumps(edit.diagnostics)

    def test_overlay_is_the_written_model(self, lm: LanguageModel, guard: Callable[[LanguageModel], None]) -> None:
        guard(lm)
        (edit,) = KN(lm, REQUESTS[:1], resources=RESOURCES)
        query = Query(prompt=REQUESTS[0].text, targets=("Microsoft Office", "Apple"))
        base, overlaid = score(lm, [query] * 2, deltas=[None, edit.delta])
        with applied(lm, edit.delta):
            (written,) = score(lm, [query])
        assert [s.nll for s in overlaid] == pytest.approx([s.nll for s in written], abs=1e-3)
        assert abs(base[0].nll - overlaid[0].nll) > 1e-2


class TestBatches:
    def test_a_batch_is_each_request_alone_in_any_order(self, lm: LanguageModel) -> None:
        together = KN(lm, REQUESTS, resources=RESOURCES)
        assert_same(together, [KN(lm, [request], resources=RESOURCES)[0] for request in REQUESTS])
        assert_same(together, KN(lm, REQUESTS[::-1], resources=RESOURCES)[::-1])
        assert len({frozenset(neurons(edit)) for edit in together}) == len(REQUESTS)

    def test_the_size_of_a_batch_changes_nothing(self, tiny_lm: LanguageModel) -> None:
        small = replace(KN, max_batch_tokens=3)(tiny_lm, REQUESTS, resources=RESOURCES)
        assert_same(small, KN(tiny_lm, REQUESTS, resources=RESOURCES))

    def test_weights_are_bit_equal_after_it(self, lm: LanguageModel) -> None:
        before = weights_of(lm)
        KN(lm, REQUESTS, resources=RESOURCES)
        assert_weights(lm, before)


class TestWhichNeurons:
    SCORES = torch.tensor([[[10.0, 2.1, 1.9], [-9.0, 0.0, 5.0]]])

    def test_above_a_share_of_the_highest_in_any_layer(self) -> None:
        assert KN.neurons(self.SCORES).tolist() == [[True, True, False], [False, False, True]]
        assert replace(KN, adaptive_threshold=0.6).neurons(self.SCORES).sum() == 1

    @pytest.mark.parametrize("refine", [False, True])
    def test_refining_a_single_prompt_does_nothing(self, refine: bool) -> None:
        chosen = replace(KN, refine=refine, p=0.99).neurons(self.SCORES)
        assert torch.equal(chosen, KN.neurons(self.SCORES))

    def test_refining_keeps_what_enough_prompts_share(self) -> None:
        """Each prompt has its own highest score, and a share of exactly p is not enough."""
        scores = torch.tensor([[[10.0, 9.0, 0.0, 9.0]], [[0.1, 0.0, 0.0, 0.09]], [[5.0, 0.0, 5.0, -5.0]]])
        kept = {p: replace(KN, refine=True, p=p).neurons(scores)[0].tolist() for p in (0.0, 0.4, 0.67)}
        assert KN.neurons(scores)[0].tolist() == kept[0.0] == [True, True, True, True]
        assert kept[0.4] == [True, False, False, True]
        assert kept[0.67] == [True, False, False, False]
        half = scores[:2]
        assert replace(KN, refine=True, p=0.5).neurons(half)[0].tolist() == [True, False, False, True]

    def test_at_most_so_many_of_the_highest(self) -> None:
        assert replace(KN, max_neurons=2).neurons(self.SCORES).tolist() == [[True, False, False], [False, False, True]]
        assert torch.equal(replace(KN, max_neurons=3).neurons(self.SCORES), KN.neurons(self.SCORES))

    @pytest.mark.parametrize("scores", [torch.zeros(1, 2, 3), -torch.rand(1, 2, 3), torch.full((1, 2, 3), torch.nan)])
    def test_no_positive_score_chooses_none(self, scores: torch.Tensor) -> None:
        assert not KN.neurons(scores).any()
        assert not replace(KN, max_neurons=1).neurons(scores).any()

    def test_none_chosen_is_an_empty_delta(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        """MLPs that write nothing into the stream: no neuron matters. Control: the others' deltas are not empty."""
        lm = tiny_factory("gpt2")
        assert KN(lm, REQUESTS[:1], resources=RESOURCES)[0].delta.terms
        with torch.no_grad():
            for layer in range(lm.n_layers):
                lm.parameter(f"{lm.architecture.mlp_out_name(layer)}.weight").zero_()
        (edit,) = KN(lm, REQUESTS[:1], resources=RESOURCES)
        assert edit.delta.terms == {}
        assert (edit.diagnostics["neurons"], edit.diagnostics["highest_score"]) == (0, 0.0)


class TestVariants:
    def test_more_prompts(self, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
        """The union over contexts holds the bare prompt's neurons; refining takes some away, and the limit more."""
        several = replace(KN, context_templates=CONTEXTS)
        bare, union, refined, few = (
            editor(tiny_gpt2, REQUESTS, resources=RESOURCES)
            for editor in (
                KN,
                several,
                replace(several, refine=True, p=0.7),
                replace(several, refine=True, p=0.7, max_neurons=10),
            )
        )
        for a, b, c, d in zip(bare, union, refined, few, strict=True):
            assert neurons(a) < neurons(b)
            assert neurons(d) <= neurons(c) < neurons(b)
            assert len(neurons(d)) == min(10, len(neurons(c)))
            assert torch.equal(vector(a), vector(b))  # what the model says is looked up behind the bare prompt
        path = tmp_path / "contexts.json"
        path.write_text(json.dumps(CONTEXTS))
        assert_same(union, replace(KN, context_templates=str(path))(tiny_gpt2, REQUESTS, resources=RESOURCES))

    def test_contexts_come_from_the_model_and_the_seed(self, tiny_gpt2: LanguageModel) -> None:
        sampling = replace(KN, context_template_length_params=[[6, 3]])
        one, again, other = (
            sampling(tiny_gpt2, REQUESTS[:2], resources=replace(RESOURCES, seed=seed)) for seed in (0, 0, 1)
        )
        assert_same(one, again)
        assert [neurons(edit) for edit in one] != [neurons(edit) for edit in other]

    def test_extending_the_prompt(self, lm: LanguageModel) -> None:
        """Token i of the ground truth behind i of the model's own tokens, instead of all behind the prompt."""
        request = REQUESTS[3]
        prompt = naive_kn.tokens(lm, request.text)
        truth = naive_kn.tokens(lm, request.target_true, special=False)
        assert len(truth) > 1
        extended = replace(KN, extend_prompt=True)
        edits = extended(lm, [REQUESTS[0], request, REQUESTS[2]], resources=RESOURCES)
        expected = naive_kn.scores(lm, prompt, truth, steps=KN.steps, extend_prompt=True)
        wanted = KN.neurons(expected[None])
        assert edits[1].diagnostics["neurons"] == int(wanted.sum())
        assert edits[1].diagnostics["highest_score"] == pytest.approx(float(expected.max()), rel=1e-3)
        (plain,) = KN(lm, [request], resources=RESOURCES)
        assert neurons(edits[1]) != neurons(plain)
        assert torch.equal(vector(edits[1]), vector(plain))

    def test_with_and_without_the_space(self, tiny_gpt2: LanguageModel) -> None:
        request = REQUESTS[2]
        (bare,), (spaced,) = (
            replace(KN, leading_space=space, prediction_factor=0.0)(tiny_gpt2, [request], resources=RESOURCES)
            for space in (False, True)
        )
        ids = [naive_kn.tokens(tiny_gpt2, text) for text in ("Paris", " Paris")]
        assert ids[0] != ids[1]
        torch.testing.assert_close(vector(bare), embedding(tiny_gpt2, *ids[0]))
        torch.testing.assert_close(vector(spaced), embedding(tiny_gpt2, *ids[1]))
        assert neurons(bare) != neurons(spaced)  # the ground truth's tokens differ too

    def test_the_factors(self, tiny_lm: LanguageModel) -> None:
        request = REQUESTS[2]
        (edit,) = replace(KN, target_factor=3.0)(tiny_lm, [request], resources=RESOURCES)
        said = int(naive_kn.next_logits(tiny_lm, naive_kn.tokens(tiny_lm, request.text)).argmax())
        target = naive_kn.tokens(tiny_lm, request.target_new, special=False)
        expected = 3 * embedding(tiny_lm, *target) - 2 * embedding(tiny_lm, said)
        torch.testing.assert_close(vector(edit), expected)
        assert edit.diagnostics["prediction"] == tiny_lm.tokenizer.decode([said])


def test_on_the_shipped_model(minifact_lm: LanguageModel) -> None:
    """The true object loses and the new one gains, by the neurons that say it; what another fact's neurons get does
    not do that."""
    cases = CounterFact(path=assets.counterfact_path(), limit=12).load().items
    editor = KnowledgeNeurons(leading_space=True, adaptive_threshold=0.05, prediction_factor=0.2, target_factor=0.2)
    edits = editor(minifact_lm, [case.request for case in cases], resources=RESOURCES)
    queries = [
        Query(prompt=case.request.text, targets=(case.request.target_new, case.request.target_true))
        for case in cases
        for _ in range(2)
    ]
    scores = score(minifact_lm, queries, deltas=[delta for edit in edits for delta in (None, edit.delta)])
    margins = torch.tensor([true.nll - new.nll for new, true in scores]).view(-1, 2)
    assert (margins[:, 0] < 0).all()
    assert (margins[:, 1] > 0).float().mean() > 0.7
