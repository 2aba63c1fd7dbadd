"""Attribution patching is the slope of what exact patching does, and screening computes what it says it computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_other_settings import prepared, swapped, tracer, whole_pass

from romexp.lm.model import LanguageModel
from romexp.tracing.noise import Gaussian
from romexp.tracing.prompt import TracedPrompt
from romexp.tracing.tracer import KINDS, Tracer

STEP = 1e-2


def slope(lm: LanguageModel, prompt: TracedPrompt, kind: str, token: int, layer: int, *, restores: bool) -> float:
    """d metric / d ε where the state goes from the base run's value by ε towards the other run's, at ε = 0."""
    from naive_trace import module_name

    name = module_name(lm, kind, layer)
    values = {}
    for run, ids in (("clean", prompt.ids), ("corrupted", swapped(prompt))):
        kept = {name: torch.empty(0)}
        whole_pass(lm, ids, keep=kept)
        values[run] = kept[name][token]
    base = swapped(prompt) if restores else prompt.ids
    towards = (values["clean"] - values["corrupted"]) * (1 if restores else -1)

    def score(step: float) -> float:
        def change(output: torch.Tensor) -> torch.Tensor:
            output[0, token] += step * towards
            return output

        scores = whole_pass(lm, base, {name: change}).double()
        assert prompt.partner
        return float(scores[prompt.answer] - scores[prompt.partner.foil])

    return (score(STEP) - score(-STEP)) / (2 * STEP)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_an_estimate_is_the_slope_of_the_exact_effect_on_every_family(tiny_lm: LanguageModel, direction: str) -> None:
    prompts = prepared(tiny_lm)
    settings = {"metric": "logit_difference", "direction": direction, "window": 1}
    prompt, trace = prompts[0], tracer(**settings, method="attribution")(tiny_lm, prompts)[0]
    restores = direction == "denoise"
    base = trace.low_score if restores else trace.high_score
    token = prompt.subject_range[1] - 1
    for kind in KINDS:
        for at, layer in ((token, 0), (token, 2), (len(prompt.ids) - 1, 3)):
            expected = slope(tiny_lm, prompt, kind, at, layer, restores=restores)
            found = trace.grids[kind][at][layer] - base  # type: ignore[operator]
            assert found == pytest.approx(expected, rel=0.05, abs=0.02)
    assert np.ptp(np.array(trace.grids["mlp"], dtype=float)) > 1e-2  # the control: something has a slope


def test_estimates_of_a_prompt_do_not_depend_on_the_others(tiny_gpt2: LanguageModel) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=0.3)
    for settings in ({}, {"direction": "noise"}, {"points": 3}, {"points": 3, "direction": "noise"}):
        guess = Tracer(method="attribution", samples=4, **settings)  # type: ignore[arg-type]
        together = guess(tiny_gpt2, prompts, noise=noise)
        alone = [guess(tiny_gpt2, [prompt], noise=noise)[0] for prompt in prompts]
        for a, b in zip(together, alone, strict=True):
            assert a.low_score == pytest.approx(b.low_score, abs=1e-5)
            for kind in KINDS:
                np.testing.assert_allclose(np.array(a.grids[kind], float), np.array(b.grids[kind], float), atol=1e-4)


def test_scores_of_the_two_runs_are_those_of_the_exact_trace(tiny_gpt2: LanguageModel) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=0.3)
    for direction in ("denoise", "noise"):
        exact = Tracer(samples=3, severed=False, window=1, direction=direction)(tiny_gpt2, prompts, noise=noise)  # type: ignore[arg-type]
        for method in ("attribution", "screen"):
            found = Tracer(samples=3, method=method, direction=direction)(tiny_gpt2, prompts, noise=noise)  # type: ignore[arg-type]
            for a, b in zip(exact, found, strict=True):
                assert (a.low_score, a.high_score) == pytest.approx((b.low_score, b.high_score), abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"direction": "noise"}, {"grad_drop": True}, {"points": 3}])
def test_screening_computes_its_share_exactly(tiny_gpt2: LanguageModel, settings: dict[str, object]) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=0.3)
    direction = settings.get("direction", "denoise")
    exact = Tracer(samples=3, severed=False, window=1, direction=direction)(tiny_gpt2, prompts, noise=noise)  # type: ignore[arg-type]
    part = Tracer(samples=3, method="screen", share=0.2, **settings)(tiny_gpt2, prompts, noise=noise)  # type: ignore[arg-type]
    whole = Tracer(samples=3, method="screen", share=1, **settings)(tiny_gpt2, prompts, noise=noise)  # type: ignore[arg-type]
    estimated = 0.0
    for prompt, a, some, every in zip(prompts, exact, part, whole, strict=True):
        tokens = len(prompt.ids) - prompt.subject_range[0]
        cells = tokens * (tiny_gpt2.n_layers - 1) + 1
        for kind in KINDS:
            want = np.array(a.grids[kind], dtype=float)
            np.testing.assert_allclose(np.array(every.grids[kind], dtype=float), want, atol=1e-5)
            assert len(some.exact_cells[kind]) == math.ceil(0.2 * cells)
            got = np.array(some.grids[kind], dtype=float)
            for place in some.exact_cells[kind]:
                assert got[place] == pytest.approx(want[place], abs=1e-5)
            estimated = max(estimated, float(np.abs(got - want).max()))
    assert estimated > 1e-4  # the control: the other cells are estimates


def test_screening_by_size_computes_what_is_large_enough(tiny_gpt2: LanguageModel) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=0.3)
    guess = Tracer(samples=3, method="attribution")(tiny_gpt2, prompts, noise=noise)
    effects = [np.abs(np.array(g.grids[kind], float) - g.low_score) for g in guess for kind in KINDS]
    at_least = float(np.median(np.concatenate([e[e > 0] for e in effects])))
    found = Tracer(samples=3, method="screen", at_least=at_least)(tiny_gpt2, prompts, noise=noise)
    exact = Tracer(samples=3, severed=False, window=1)(tiny_gpt2, prompts, noise=noise)
    counts = []
    for g, some, every in zip(guess, found, exact, strict=True):
        for kind in KINDS:
            sizes = np.abs(np.array(g.grids[kind], float) - g.low_score)
            close = {(int(token), int(layer)) for token, layer in np.argwhere(np.abs(sizes - at_least) < 1e-6)}
            large = {(int(token), int(layer)) for token, layer in np.argwhere(sizes >= at_least)}
            assert {*some.exact_cells[kind]} - close == large - close
            got, want = (np.array(each.grids[kind], float) for each in (some, every))
            assert all(got[place] == pytest.approx(want[place], abs=1e-5) for place in some.exact_cells[kind])
            counts.append(len(large))
    assert len(set(counts)) > 1  # the control: a share would compute as many of each kind
    by_kind = Tracer(samples=3, method="screen", at_least={"mlp": at_least})(tiny_gpt2, prompts, noise=noise)
    for some, other in zip(found, by_kind, strict=True):
        assert other.exact_cells == {"hidden": [], "mlp": some.exact_cells["mlp"], "attn": []}


def test_the_last_subject_token_alone(tiny_gpt2: LanguageModel) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=0.3)
    whole = Tracer(samples=3, method="screen")(tiny_gpt2, prompts, noise=noise)
    last = Tracer(samples=3, method="screen", token_range="subject_last")(tiny_gpt2, prompts, noise=noise)
    for prompt, a, b in zip(prompts, whole, last, strict=True):
        token = prompt.subject_range[1] - 1
        assert all(place[0] == token for places in b.exact_cells.values() for place in places)
        assert all(cell is None for i, row in enumerate(b.grids["mlp"]) if i != token for cell in row)
        assert np.isfinite(np.array(b.grids["mlp"][token], dtype=float)).all()
        assert len(a.grids["mlp"]) == len(b.grids["mlp"])
