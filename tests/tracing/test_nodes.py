"""Heads, neurons and the logit lens, against hooks that do the same in the plainest way; every family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel
from romexp.tasks.trace_identity import tracer_identity
from romexp.tracing.corruption import corrupt
from romexp.tracing.heads import attention_patterns, head_paths, trace_heads
from romexp.tracing.lens import logit_lens
from romexp.tracing.module_inputs import attention_out_name, n_heads
from romexp.tracing.neurons import neuron_paths, trace_neurons
from romexp.tracing.noise import Gaussian
from romexp.tracing.prompt import TracedPrompt, prepare_prompts
from romexp.tracing.run_pair import RunPair, run_pair
from romexp.tracing.tracer import Tracer

PROMPT, SUBJECT = "The Space Needle is located in", "Space Needle"


def prompt_of(lm: LanguageModel) -> TracedPrompt:
    (prompt,) = prepare_prompts(lm, [PROMPT], [SUBJECT])
    assert isinstance(prompt, TracedPrompt)
    return prompt


def pair_of(lm: LanguageModel, tracer: Tracer, paths: Sequence[str], *, scale: float = 0.5) -> RunPair:
    return run_pair(tracer, lm, prompt_of(lm), paths, noise=Gaussian(scale=scale), seed=0)


@torch.no_grad()
def naive(lm: LanguageModel, path: str, features: slice, token: slice, *, restore: bool) -> float:
    """p(answer) of two noised copies with a part of a linear map's input taken from the other run, by whole passes."""
    prompt = prompt_of(lm)
    begin, end = prompt.subject_range
    noise = Gaussian(scale=0.5).draw(np.random.RandomState(1), (2, end - begin, lm.hidden_size))
    change = corrupt([prompt], [noise], samples=2, extra_token=0, replace=False)
    ids = torch.tensor([prompt.ids] * 2, device=lm.device)
    module, embedding = lm.module(path), lm.module(lm.architecture.embedding)
    seen: list[torch.Tensor] = []

    def run(*, noised: bool, hook: Any) -> torch.Tensor:
        handles = [module.register_forward_pre_hook(hook)]
        if noised:
            handles.append(embedding.register_forward_hook(lambda m, a, out: change(out)))
        try:
            return lm.model(input_ids=ids).logits[:, -1].float().softmax(-1)[:, prompt.answer].mean()
        finally:
            for handle in handles:
                handle.remove()

    run(noised=not restore, hook=lambda m, args: seen.append(args[0].clone()))

    def put(module: Any, args: Any) -> Any:
        new = args[0].clone()
        new[:, token, features] = seen[0][:, token, features]
        return (new, *args[1:])

    return float(run(noised=restore, hook=put))


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_heads_equal_plain_hooks(tiny_lm: LanguageModel, direction: str, guard: Any) -> None:
    guard(tiny_lm)
    tracer = Tracer(nodes="heads", samples=2, direction=direction)  # type: ignore[arg-type]
    found = trace_heads(tracer, pair := pair_of(tiny_lm, tracer, head_paths(tiny_lm)))
    heads = n_heads(tiny_lm)
    assert np.array(found["heads"]).shape == (tiny_lm.n_layers, heads)
    for layer, head in ((0, 0), (tiny_lm.n_layers - 1, heads - 1)):
        path = attention_out_name(tiny_lm, layer)
        size = tiny_lm.module(path).weight.numel() // tiny_lm.hidden_size // heads
        part = slice(head * size, (head + 1) * size)
        expected = naive(tiny_lm, path, part, slice(None), restore=direction == "denoise")
        assert found["heads"][layer][head] == pytest.approx(expected, abs=1e-5)
    assert max(abs(score - pair.score) for line in found["heads"] for score in line) > 1e-4  # control: it did something


def test_single_neurons_equal_plain_hooks(tiny_lm: LanguageModel) -> None:
    tracer = Tracer(nodes="neurons", samples=2, top=3)
    pair = pair_of(tiny_lm, tracer, neuron_paths(tiny_lm))
    neurons = trace_neurons(tracer, pair)["neurons"]
    assert len(neurons) == 3
    for neuron in neurons:
        path = tiny_lm.architecture.mlp_out_name(neuron["layer"])
        token, number = (slice(neuron[name], neuron[name] + 1) for name in ("token", "neuron"))
        expected = naive(tiny_lm, path, number, token, restore=True) - pair.score
        assert neuron["effect"] == pytest.approx(expected, abs=1e-5)
        assert neuron["token"] >= pair.first
    assert any(abs(neuron["effect"]) > 1e-5 for neuron in neurons)  # control


@pytest.mark.parametrize("nodes", ["heads", "neurons"])
def test_estimates_agree_for_small_noise(tiny_gpt2: LanguageModel, nodes: str) -> None:
    tracer = Tracer(nodes=nodes, samples=2, metric="log_probability")  # type: ignore[arg-type]
    paths = head_paths(tiny_gpt2) if nodes == "heads" else neuron_paths(tiny_gpt2)
    pair = pair_of(tiny_gpt2, tracer, paths, scale=1e-3)
    if nodes == "heads":
        exact, estimated = (
            np.array(trace_heads(replace(tracer, method=method), pair)["heads"]) - pair.score  # type: ignore[arg-type]
            for method in ("exact", "attribution")
        )
    else:
        neurons = trace_neurons(tracer, pair)["neurons"]
        exact, estimated = (np.array([n[name] for n in neurons]) for name in ("effect", "estimate"))
    assert np.abs(exact).max() > 1e-6
    assert np.abs(exact - estimated).max() < 0.1 * np.abs(exact).max()


def test_attention_is_that_of_the_model(tiny_lm: LanguageModel) -> None:
    before = tiny_lm.model.config._attn_implementation
    prompt = prompt_of(tiny_lm)
    patterns = attention_patterns(tiny_lm, prompt)
    assert tiny_lm.model.config._attn_implementation == before
    assert [pattern.shape for pattern in patterns] == [(n_heads(tiny_lm), len(prompt.ids), len(prompt.ids))] * len(
        patterns
    )
    for pattern in patterns:
        assert torch.allclose(pattern.sum(-1), torch.ones(pattern.shape[:2]), atol=1e-5)
        assert not pattern.triu(1).any()  # nothing attends to what comes later
        assert pattern[:, -1].std() > 0  # control: not the same everywhere


@torch.no_grad()
def test_lens_ends_with_the_model_and_begins_with_its_states(tiny_lm: LanguageModel) -> None:
    prompt = prompt_of(tiny_lm)
    found = logit_lens(tiny_lm, prompt)
    out = tiny_lm.model(input_ids=torch.tensor([prompt.ids]), output_hidden_states=True)
    last = out.logits[0].float().softmax(-1)
    assert np.array(found["lens"])[:, -1] == pytest.approx(last[:, prompt.answer].numpy(), abs=1e-6)
    assert found["lens_ranks"][-1][-1] == 1
    norm, head = tiny_lm.module(tiny_lm.architecture.final_norm), tiny_lm.model.get_output_embeddings()
    first = head(norm(out.hidden_states[1][0])).float().softmax(-1)
    assert np.array(found["lens"])[:, 0] == pytest.approx(first[:, prompt.answer].numpy(), abs=1e-6)
    assert found["lens_tokens"][0][0] == tiny_lm.tokenizer.decode([int(first[0].argmax())])


@pytest.mark.parametrize(
    "settings",
    [
        {"nodes": "head"},
        {"nodes": "heads", "window": 3},
        {"nodes": "heads", "method": "screen"},
        {"nodes": "neurons", "top": 0},
        {"nodes": "lens", "metric": "kl"},
        {"nodes": "lens", "corruption": "str"},
        {"nodes": "heads", "token_range": "subject_last"},
        {"nodes": "neurons", "method": "attribution", "points": 3},
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="tracer"):
        Tracer(**settings)


def test_only_what_is_read_is_part_of_the_identity() -> None:
    assert tracer_identity(Tracer(top=5)) == tracer_identity(Tracer())
    lens = tracer_identity(Tracer(nodes="lens"))
    assert lens == tracer_identity(Tracer(nodes="lens", samples=3, noise="s2", severed=False))
    assert lens != tracer_identity(Tracer(nodes="heads"))
    assert tracer_identity(Tracer(nodes="neurons", top=5)) != tracer_identity(Tracer(nodes="neurons"))
