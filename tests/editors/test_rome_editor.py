"""ROME's edits are those of the plain computation, and do to the matrix what the paper's formula says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import naive
import pytest
import torch
from conftest import FAMILIES
from edit_cases import (
    REQUESTS,
    TEMPLATES,
    furthest,
    moment,
    no_moment,
    relative,
    resources,
    term,
)
from rome_cases import ROME

from romexp.editors.base import Edit, Resources
from romexp.editors.rome import editor as editor_module
from romexp.editors.values.optimize import Trajectory
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import score


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


def assert_naive(edit: Edit, plain: naive.RomeResult) -> None:
    """Equal to the plain computation. Measured: u 3e-7, Λ' 2e-5 relative, losses 2e-6."""
    assert term(edit.delta).left[:, 0] == pytest.approx(plain.u, abs=2e-6)
    assert relative(term(edit.delta).right[:, 0], plain.right) < 2e-4
    assert edit.diagnostics["loss"] == pytest.approx(plain.losses, abs=2e-5)
    assert edit.diagnostics["kl"] == pytest.approx(plain.kls, abs=2e-5)
    assert edit.diagnostics["delta_norm"] == pytest.approx(float(plain.delta.norm()), rel=2e-4)
    assert float(plain.delta.norm()) > 0.1


class TestAgainstThePlainComputation:
    @pytest.mark.parametrize("layer", [0, 1, 2, 3])
    def test_every_family_and_layer(self, lm: LanguageModel, layer: int) -> None:
        """The last layer too: no block is left above it, and only the last token's state can be used there."""
        fact_token = "last" if layer == 3 else "subject_last"
        rome = replace(ROME, layer=layer, fact_token=fact_token)
        request = REQUESTS[layer]
        (edit,) = rome(lm, [request], resources=resources())
        plain = naive.rome(lm, request, TEMPLATES, layer=layer, moment=moment(), steps=5, fact_token=fact_token)
        assert_naive(edit, plain)
        assert list(edit.delta.terms) == [f"{lm.architecture.mlp_out_name(layer)}.weight"]

    @pytest.mark.parametrize("mom2_adjustment", [True, False])
    @pytest.mark.parametrize("keys", ["mixed", "averaged", "prompt"])
    def test_keys(self, tiny_gpt2: LanguageModel, keys: str, mom2_adjustment: bool) -> None:
        rome = replace(ROME, keys=keys, mom2_adjustment=mom2_adjustment)  # type: ignore[arg-type]
        edits = rome(tiny_gpt2, REQUESTS[:2], resources=resources())
        for edit, request in zip(edits, REQUESTS, strict=False):
            plain = naive.rome(
                tiny_gpt2,
                request,
                TEMPLATES,
                layer=1,
                moment=moment() if mom2_adjustment else None,
                steps=5,
                keys=keys,
            )
            assert_naive(edit, plain)

    @pytest.mark.parametrize("fact_token", ["subject_first", "subject_last", "subject_first_after_last", "last"])
    @pytest.mark.parametrize("model", ["tiny_gpt2", "tiny_llama_bos"])
    def test_fact_tokens(self, request: pytest.FixtureRequest, model: str, fact_token: str) -> None:
        """`last` with a target of many tokens is the prompt's last token, not the target's (the reference's fault)."""
        lm: LanguageModel = request.getfixturevalue(model)
        edits = replace(ROME, fact_token=fact_token)(lm, REQUESTS, resources=resources())  # type: ignore[arg-type]
        for i in (0, 3):
            plain = naive.rome(lm, REQUESTS[i], TEMPLATES, layer=1, moment=moment(), steps=5, fact_token=fact_token)
            assert_naive(edits[i], plain)
            assert edits[i].diagnostics["lookup_index"] == naive.lookup(
                lm, REQUESTS[i].prompt, REQUESTS[i].subject, fact_token
            )

    @pytest.mark.parametrize("clamp", [0.05, 9.0])
    def test_settings_of_the_optimization(self, tiny_gpt2: LanguageModel, clamp: float) -> None:
        """Each other than its default; the smaller bound is reached, the larger is not."""
        rome = replace(ROME, v_num_grad_steps=4, v_lr=0.2, v_weight_decay=0.9, kl_factor=2.0, clamp_norm_factor=clamp)
        (edit,) = rome(tiny_gpt2, REQUESTS[2:3], resources=resources())
        plain = naive.rome(
            tiny_gpt2,
            REQUESTS[2],
            TEMPLATES,
            layer=1,
            moment=moment(),
            steps=4,
            lr=0.2,
            decay=0.9,
            kl_factor=2.0,
            clamp=clamp,
        )
        assert_naive(edit, plain)
        ratio = edit.diagnostics["delta_norm"] / edit.diagnostics["initial_norm"]
        assert ratio == pytest.approx(0.05, rel=1e-5) if clamp == 0.05 else 0.2 < ratio < 8

    def test_a_lookup_at_the_very_first_token(self, tiny_gpt2: LanguageModel) -> None:
        """No prefix at all, alone and beside texts that have one."""
        rome = replace(ROME, context_templates=["{}"])
        plain = naive.rome(tiny_gpt2, REQUESTS[2], ["{}"], layer=1, moment=moment(), steps=5)
        for requests in (REQUESTS[2:3], REQUESTS[1:4]):
            edit = rome(tiny_gpt2, requests, resources=resources())[requests.index(REQUESTS[2])]
            assert edit.diagnostics["lookup_index"] == 0
            assert_naive(edit, plain)


class TestTheEdit:
    def test_makes_the_model_say_the_new_target(
        self, lm: LanguageModel, guard: Callable[[LanguageModel], None]
    ) -> None:
        """At the last token, from where even a random model can be steered; the weights stay as they were."""
        guard(lm)
        rome = replace(ROME, layer=2, fact_token="last", v_num_grad_steps=15, v_weight_decay=0.01)
        requests = [replace(REQUESTS[1], target_new="Paris"), replace(REQUESTS[3], target_new="the")]
        edits = rome(lm, requests, resources=resources())
        queries = [Query(prompt=r.text, targets=(r.target_new,)) for r in requests]
        deltas = [None, edits[0].delta, edits[1].delta]
        scores = [s.nll for (s,) in score(lm, queries * 3, deltas=[delta for delta in deltas for _ in requests])]
        before, first, second = scores[:2], scores[2:4], scores[4:]
        assert first[0] < before[0] - 2
        assert second[1] < before[1] - 2
        for i, edit in enumerate(edits):
            with applied(lm, edit.delta):
                (written,) = score(lm, [queries[i]])
            assert written[0].nll == pytest.approx((first[0], second[1])[i], abs=1e-4)

    @pytest.mark.parametrize("keys", ["mixed", "averaged", "prompt"])
    def test_the_edited_matrix_returns_the_target_value(
        self, lm: LanguageModel, keys: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ŵk = v* for the bare prompt's k (mixed, prompt) or the mean key (averaged), whatever δ is asked for."""
        wanted = torch.randn(2, lm.hidden_size)
        found = wanted[:, None], [Trajectory(), Trajectory()]
        monkeypatch.setattr(editor_module, "optimize_values", lambda *_a, **_k: found)
        requests, memory = REQUESTS[:2], lm.architecture.mlp_out_name(1)
        edits = replace(ROME, keys=keys)(lm, requests, resources=resources())  # type: ignore[arg-type]
        for edit, request, delta in zip(edits, requests, wanted, strict=True):
            prompts = [t.replace("{}", request.prompt) for t in TEMPLATES]
            ids = [naive.tokens(lm, p.replace("{}", request.subject)) for p in prompts]
            at = [naive.lookup(lm, p, request.subject, "subject_last") for p in prompts]
            pairs = [naive.look(lm, memory, *spot) for spot in zip(ids, at, strict=True)]
            mean = torch.stack([key for key, _ in pairs]).mean(0)
            value = pairs[0][1] + delta
            module = lm.module(memory)
            with applied(lm, edit.delta):
                bare, averaged = module(pairs[0][0][None])[0], module(mean[None])[0]
            exact, other = (averaged, bare) if keys == "averaged" else (bare, averaged)
            torch.testing.assert_close(exact, value, atol=2e-5, rtol=1e-4)
            assert (other - value).norm() > 0.02 * delta.norm()  # a control

    def test_is_of_rank_one_with_a_unit_direction(self, tiny_lm: LanguageModel) -> None:
        for edit in ROME(tiny_lm, REQUESTS, resources=resources()):
            only = term(edit.delta)
            assert only.left.shape == (64, 1)
            assert only.right.shape == (32, 1)
            assert only.left.dtype == only.right.dtype == torch.float32
            assert float(only.left.norm()) == pytest.approx(1, abs=1e-6)
            assert torch.linalg.matrix_rank(only.dense()) == 1

    def test_moves_the_value_by_delta(self, tiny_lm: LanguageModel) -> None:
        """‖Ŵk − Wk‖ is the ‖δ‖ that the optimization reports."""
        memory = tiny_lm.architecture.mlp_out_name(1)
        for edit, request in zip(ROME(tiny_lm, REQUESTS, resources=resources()), REQUESTS, strict=True):
            ids = naive.tokens(tiny_lm, request.text)
            key, output = naive.look(tiny_lm, memory, ids, edit.diagnostics["lookup_index"])
            only = term(edit.delta)
            assert float(key @ only.left) == pytest.approx(edit.diagnostics["key_dot_u"], rel=1e-4)
            with applied(tiny_lm, edit.delta):
                moved = tiny_lm.module(memory)(key[None])[0] - output
            assert float(moved.norm()) == pytest.approx(edit.diagnostics["delta_norm"], rel=1e-3)

    def test_half_precision(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        """The edit of a bfloat16 model is near that of the same weights in float32, and works."""
        half = tiny_factory("gpt2", dtype=torch.bfloat16)
        whole = tiny_factory("gpt2")
        rome = replace(ROME, fact_token="last", v_weight_decay=0.01)
        request = replace(REQUESTS[1], target_new="Paris")
        (edit,), (other,) = (rome(m, [request], resources=resources()) for m in (half, whole))
        assert relative(term(edit.delta).left, term(other.delta).left) < 0.1
        query = Query(prompt=request.text, targets=(request.target_new,))
        before, after = score(half, [query] * 2, deltas=[None, edit.delta])
        assert after[0].nll < before[0].nll - 1


class TestDirection:
    def test_without_second_moment_u_is_the_key(self, tiny_gpt2: LanguageModel) -> None:
        rome = replace(ROME, mom2_adjustment=False, keys="prompt")
        edits = rome(tiny_gpt2, REQUESTS, resources=Resources(second_moment=no_moment))
        for edit, request in zip(edits, REQUESTS, strict=True):
            ids = naive.tokens(tiny_gpt2, request.text)
            key, _ = naive.look(
                tiny_gpt2, tiny_gpt2.architecture.mlp_out_name(1), ids, edit.diagnostics["lookup_index"]
            )
            assert term(edit.delta).left[:, 0] == pytest.approx(key / key.norm(), abs=1e-6)

    def test_the_scale_of_the_second_moment_cancels(self, tiny_gpt2: LanguageModel) -> None:
        edits, scaled, identity, none, other = (
            rome(tiny_gpt2, REQUESTS, resources=resources(matrix))
            for rome, matrix in (
                (ROME, moment()),
                (ROME, 1000 * moment()),
                (ROME, torch.eye(64)),
                (replace(ROME, mom2_adjustment=False), moment()),
                (ROME, moment(seed=2)),
            )
        )
        assert furthest(scaled, edits) < 1e-5
        assert furthest(identity, none) < 1e-5
        assert furthest(identity, edits) > 0.1
        assert furthest(other, edits) > 0.1
