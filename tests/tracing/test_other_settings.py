"""Other corruptions, metrics and directions: a cell equals one whole pass, as docs/method.md §2.8 says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from naive_trace import module_name

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel
from romexp.tracing.noise import Gaussian
from romexp.tracing.prompt import Partner, TracedPrompt, prepare_prompts
from romexp.tracing.tracer import Tracer

PROMPTS = ("The mother tongue of Danielle Darrieux is", "It is said that the Eiffel Tower is located in")
SUBJECTS = ("Danielle Darrieux", "Eiffel Tower")
ALL = [(metric, direction) for metric in ("probability", "log_probability", "logit_difference", "kl")
       for direction in ("denoise", "noise")]  # fmt: skip


def prepared(lm: LanguageModel) -> list[TracedPrompt]:
    """Prompts with partners of made-up tokens, as many as the subject has."""
    out = []
    for prompt in prepare_prompts(lm, PROMPTS, SUBJECTS):
        assert isinstance(prompt, TracedPrompt)
        begin, end = prompt.subject_range
        ids = tuple(range(60, 60 + end - begin))
        out.append(replace(prompt, partner=Partner(subject="other", ids=ids, foil=(prompt.answer + 1) % 300)))
    return out


def swapped(prompt: TracedPrompt) -> tuple[int, ...]:
    begin, end = prompt.subject_range
    assert prompt.partner
    return (*prompt.ids[:begin], *prompt.partner.ids, *prompt.ids[end:])


@torch.no_grad()
def whole_pass(
    lm: LanguageModel,
    ids: tuple[int, ...],
    changes: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
    keep: dict[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Logits of the last token. Outputs are changed by module; those of all modules of `keep` are kept."""

    def hook(name: str):  # type: ignore[no-untyped-def]
        def run(module, args, output):  # type: ignore[no-untyped-def]
            tensor = output[0] if isinstance(output, tuple) else output
            if keep is not None and name in keep:
                keep[name] = tensor[0].clone()
            if changes and name in changes:
                tensor = changes[name](tensor.clone())
            return (tensor, *output[1:]) if isinstance(output, tuple) else tensor

        return run

    names = {*(changes or ()), *(keep or ())}
    handles = [lm.module(name).register_forward_hook(hook(name)) for name in names]
    try:
        return lm.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1].float()
    finally:
        for handle in handles:
            handle.remove()


def measured(scores: torch.Tensor, clean: torch.Tensor, prompt: TracedPrompt, metric: str) -> float:
    assert prompt.partner
    log_p, log_clean = scores.log_softmax(-1), clean.log_softmax(-1)
    return float(
        {
            "probability": log_p[prompt.answer].exp(),
            "log_probability": log_p[prompt.answer],
            "logit_difference": scores[prompt.answer] - scores[prompt.partner.foil],
            "kl": (log_clean.exp() * (log_clean - log_p)).sum(),
        }[metric]
    )


def compared(prompt: TracedPrompt) -> list[int]:
    """The tokens that are compared: the subject's first and last, and the prompt's last."""
    begin, end = prompt.subject_range
    return [begin, end - 1, len(prompt.ids) - 1]


def naive(
    lm: LanguageModel, prompt: TracedPrompt, kind: str, metric: str, direction: str, *, window: int
) -> np.ndarray:
    runs = {"clean": prompt.ids, "corrupted": swapped(prompt)}
    base, source = ("corrupted", "clean") if direction == "denoise" else ("clean", "corrupted")
    clean = whole_pass(lm, prompt.ids)
    kept = {module_name(lm, kind, layer): torch.empty(0) for layer in range(lm.n_layers)}
    whole_pass(lm, runs[source], keep=kept)
    out = np.zeros((3, lm.n_layers))
    for row, token in enumerate(compared(prompt)):
        for layer in range(lm.n_layers):
            first = layer if kind == "hidden" else max(0, layer - window // 2)
            last = layer + 1 if kind == "hidden" else min(lm.n_layers, layer - (-window // 2))

            def put(name: str, at: int = token):  # type: ignore[no-untyped-def]
                def change(output: torch.Tensor) -> torch.Tensor:
                    output[0, at] = kept[name][at]
                    return output

                return change

            names = [module_name(lm, kind, each) for each in range(first, last)]
            scores = whole_pass(lm, runs[base], {name: put(name) for name in names})
            out[row, layer] = measured(scores, clean, prompt, metric)
    return out


def tracer(**changes: object) -> Tracer:
    return Tracer(**{"samples": 2, "window": 3, "severed": False, "corruption": "str", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("metric", "direction"), ALL)
def test_every_cell_equals_one_whole_pass(tiny_gpt2: LanguageModel, metric: str, direction: str) -> None:
    prompts = prepared(tiny_gpt2)
    traces = tracer(metric=metric, direction=direction)(tiny_gpt2, prompts)
    prompt, trace = prompts[0], traces[0]
    clean = whole_pass(tiny_gpt2, prompt.ids)
    low = measured(whole_pass(tiny_gpt2, swapped(prompt)), clean, prompt, metric)
    assert trace.low_score == pytest.approx(low, abs=1e-4)
    assert trace.high_score == pytest.approx(measured(clean, clean, prompt, metric), abs=1e-4)
    for kind in ("hidden", "mlp", "attn"):
        expected = naive(tiny_gpt2, prompt, kind, metric, direction, window=3)
        np.testing.assert_allclose(np.array(trace.grids[kind], dtype=float)[compared(prompt)], expected, atol=1e-4)
        assert np.ptp(expected) > 1e-3  # the control: replacing matters somewhere


def test_on_every_family(tiny_lm: LanguageModel) -> None:
    prompts = prepared(tiny_lm)[:1]
    settings = {"metric": "logit_difference", "direction": "noise", "kinds": ["attn"]}
    (trace,) = tracer(**settings)(tiny_lm, prompts)
    expected = naive(tiny_lm, prompts[0], "attn", "logit_difference", "noise", window=3)
    np.testing.assert_allclose(np.array(trace.grids["attn"], dtype=float)[compared(prompts[0])], expected, atol=1e-3)
    assert np.ptp(expected) > 1e-2


def test_with_noise_each_sample_brings_its_own_corrupted_states(tiny_gpt2: LanguageModel) -> None:
    """The last state of the last token is all that is read, so that the clean run with it is the corrupted run."""
    prompts = prepared(tiny_gpt2)
    settings = {"corruption": "noise", "direction": "noise", "samples": 3}
    for prompt, trace in zip(prompts, tracer(**settings)(tiny_gpt2, prompts, noise=Gaussian(scale=0.5)), strict=True):
        assert trace.grids["hidden"][-1][-1] == pytest.approx(trace.low_score, abs=1e-5)
        assert abs(trace.low_score - prompt.high_score) > 1e-4
        begin = prompt.subject_range[0]
        np.testing.assert_allclose(np.array(trace.grids["mlp"][:begin], dtype=float), prompt.high_score, atol=1e-5)
    small = tracer(**settings, max_batch_tokens=30)(tiny_gpt2, prompts[::-1], noise=Gaussian(scale=0.5))[::-1]
    np.testing.assert_allclose(
        np.array(small[0].grids["mlp"], dtype=float),
        np.array(trace_of(tiny_gpt2, prompts, settings), dtype=float),
        atol=1e-5,
    )


def trace_of(lm: LanguageModel, prompts: list[TracedPrompt], settings: dict[str, object]) -> object:
    return tracer(**settings)(lm, prompts, noise=Gaussian(scale=0.5))[0].grids["mlp"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"metric": "logit_difference", "corruption": "noise"}, "foil"),
        ({"method": "attribution", "window": 3}, "window=1"),
        ({"method": "screen", "window": 10}, "window=1"),
        ({"window": 1, "grad_drop": True}, "grad_drop"),
        ({"points": 3}, "points"),
        ({"method": "screen", "window": 1, "share": 0.0}, "share"),
        ({"method": "screen", "window": 1, "at_least": 0.0}, "at_least"),
        ({"at_least": 0.1}, "at_least"),
        ({"method": "screen", "window": 1, "at_least": {"mlps": 0.1}}, "'mlps' is none of tracer.kinds"),
        ({"method": "screen", "window": 1, "at_least": {"mlp": -0.1}}, "at_least"),
        ({"replace": True}, "draws none"),
        ({"extra_token": 1}, "draws none"),
        ({"seed_per_case": True}, "draws none"),
        ({"corruption": "swap"}, "noise, str"),
        ({"metric": "logits"}, "none of"),
        ({"direction": "both"}, "denoise, noise"),
        ({"method": "guess"}, "attribution"),
    ],
)
def test_nonsense_is_refused_in_one_line(bad: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        tracer(**bad)
    assert str(error.value).startswith("tracer")
    assert "\n" not in str(error.value)


def test_where_no_window_is_set_the_method_decides() -> None:
    assert Tracer().width == 10
    assert Tracer(usual_window=3).width == 3
    assert Tracer(usual_window=3, method="attribution").width == 1
    assert Tracer(usual_window=3, window=5).width == 5


def test_prompts_without_partners(tiny_gpt2: LanguageModel) -> None:
    prompts = [replace(prompt, partner=None) for prompt in prepared(tiny_gpt2)]
    with pytest.raises(ConfigError, match="no other subject"):
        tracer()(tiny_gpt2, prompts)
