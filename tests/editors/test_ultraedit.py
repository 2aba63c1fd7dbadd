"""UltraEdit against its formula, its sequence, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import naive
import pytest
import torch
from edit_cases import REQUESTS, resources
from many_cases import dense, distance

from romexp.editors.sequence import SequenceState, edit_together
from romexp.editors.ultraedit import UltraEdit
from romexp.errors import ConfigError, RecordError
from romexp.facts import EditRequest
from romexp.lm.apply_delta import applied, stored_transposed
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import score
from romexp.stats.running_moments import RunningMoments

EDITOR = UltraEdit(layers=(1, 2), lr=1e-4)
FIRST, SECOND = REQUESTS[:2], REQUESTS[2:]


def rows(lm: LanguageModel, request: EditRequest, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and gradients at the answer's tokens, from one text alone through the whole model."""
    prompt = naive.tokens(lm, request.text)
    target = naive.tokens(lm, f" {request.target_new}", special=False)
    recorded: dict[str, torch.Tensor] = {}

    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        recorded["k"], recorded["y"] = inputs[0].detach(), output.detach().requires_grad_(True)
        return recorded["y"]

    handle = lm.module(lm.architecture.mlp_out_name(layer)).register_forward_hook(hook)
    try:
        log_p = lm.model(torch.tensor([prompt + target])).logits[0].log_softmax(-1)
    finally:
        handle.remove()
    nll = -sum(log_p[len(prompt) - 1 + i, token] for i, token in enumerate(target))
    (gradient,) = torch.autograd.grad(nll, recorded["y"])
    at = slice(len(prompt) - 1, len(prompt) - 1 + len(target))
    return recorded["k"][0, at].double(), gradient[0, at].double()


def plain_step(lm: LanguageModel, layers: Sequence[int], found: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """ΔW of each layer by D × D systems, standardized over the rows of all layers, which have one shape."""
    both = [torch.cat(list(pair), dim=1) for pair in found]
    pooled = torch.cat(both)
    steps = []
    for (keys, _), row in zip(found, both, strict=True):
        hat = (row - pooled.mean(0)) / pooled.std(0)
        k, g = hat[:, : keys.shape[1]], hat[:, keys.shape[1] :]
        values = -EDITOR.lr * k.square().sum(1, keepdim=True) * g
        steps.append(torch.linalg.solve(keys.T @ keys + EDITOR.ridge * torch.eye(keys.shape[1]), keys.T @ values))
    return steps


def test_a_step_is_its_formula(tiny_lm: LanguageModel, guard: Callable[[LanguageModel], None]) -> None:
    guard(tiny_lm)
    made = edit_together(EDITOR, tiny_lm, REQUESTS, resources=resources())
    found = []
    for layer in (1, 2):
        each = [rows(tiny_lm, request, layer) for request in REQUESTS]
        found.append([torch.cat([pair[i] for pair in each]) for i in (0, 1)])
    assert distance([step.double() for step in dense(made.delta)], plain_step(tiny_lm, (1, 2), found)) < 1e-3
    names = [f"{tiny_lm.architecture.mlp_out_name(layer)}.weight" for layer in (1, 2)]
    assert list(made.delta.terms) == names


def test_an_edit_makes_its_answers_likelier(tiny_gpt2: LanguageModel) -> None:
    made = edit_together(replace(EDITOR, lr=1e-3), tiny_gpt2, REQUESTS, resources=resources())
    queries = [Query(prompt=request.text, targets=(request.target_new,)) for request in REQUESTS]

    def nll() -> list[float]:
        return [each.nll for (each,) in score(tiny_gpt2, queries)]  # type: ignore[misc]

    before = nll()
    with applied(tiny_gpt2, made.delta):
        after = nll()
    assert all(new < old - 1e-4 for new, old in zip(after, before, strict=True))
    assert [said["nll"] for said in made.outcomes] == pytest.approx(before, abs=1e-4)  # type: ignore[index]


def test_the_order_within_a_step_does_not_matter(tiny_gpt2: LanguageModel) -> None:
    one = edit_together(EDITOR, tiny_gpt2, REQUESTS, resources=resources())
    other = edit_together(replace(EDITOR, batch_size=1), tiny_gpt2, REQUESTS[::-1], resources=resources())
    assert distance(dense(one.delta), dense(other.delta)) < 1e-4


def test_statistics_are_over_the_whole_sequence_and_survive_their_file(
    tiny_gpt2: LanguageModel, tmp_path: Path
) -> None:
    first = edit_together(EDITOR, tiny_gpt2, FIRST, resources=resources()).state
    second = edit_together(EDITOR, tiny_gpt2, SECOND, resources=resources(), state=first)
    first.save(tmp_path / "state.safetensors")
    read, _ = SequenceState.load(tmp_path / "state.safetensors")
    again = edit_together(EDITOR, tiny_gpt2, SECOND, resources=resources(), state=read)
    assert again.delta.digest == second.delta.digest
    assert all(torch.equal(again.state.statistics[name], value) for name, value in second.state.statistics.items())
    fresh = replace(first, statistics={})
    alone = edit_together(EDITOR, tiny_gpt2, SECOND, resources=resources(), state=fresh)
    assert distance(dense(alone.delta), dense(second.delta)) > 1e-3, "without the earlier rows it is another edit"
    counts = [int(value) for name, value in second.state.statistics.items() if name.endswith("count")]
    n_tokens = sum(said["answer_tokens"] for said in (*first_outcomes(tiny_gpt2), *second.outcomes))  # type: ignore[index]
    assert counts == [2 * n_tokens], "two weights of one shape share their statistics"


def first_outcomes(lm: LanguageModel) -> Sequence[object]:
    return edit_together(EDITOR, lm, FIRST, resources=resources()).outcomes


def test_other_linear_maps_by_name(tiny_llama_bos: LanguageModel) -> None:
    names = ("model.layers.0.mlp.gate_proj", "model.layers.1.mlp.up_proj")
    editor = UltraEdit(modules=names, lr=1e-4)
    made = edit_together(editor, tiny_llama_bos, REQUESTS, resources=resources())
    assert list(made.delta.terms) == [f"{name}.weight" for name in names]
    assert stored_transposed(tiny_llama_bos, f"{names[0]}.weight")
    bad = UltraEdit(modules=["model.layers.0.nothing"])
    with pytest.raises(ConfigError, match=r"has no .model\.layers\.0\.nothing\.weight."):
        edit_together(bad, tiny_llama_bos, REQUESTS, resources=resources())


def test_a_bad_request_stands_aside(tiny_gpt2: LanguageModel) -> None:
    bad = replace(REQUESTS[0], target_new="")
    made = edit_together(EDITOR, tiny_gpt2, [*REQUESTS, bad], resources=resources())
    assert isinstance(made.outcomes[-1], RecordError)
    assert made.state.n_edits == len(REQUESTS)
    without = edit_together(EDITOR, tiny_gpt2, REQUESTS, resources=resources())
    assert distance(dense(made.delta), dense(without.delta)) < 1e-6


def test_single_answers_and_bad_settings_are_refused(tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="several facts together"):
        EDITOR(tiny_gpt2, REQUESTS, resources=resources())
    (one_token,) = (request for request in REQUESTS if request.target_new == "Paris")
    with pytest.raises(ConfigError, match="several facts together"):
        edit_together(replace(EDITOR, layers=(1,)), tiny_gpt2, [one_token], resources=resources())
    with pytest.raises(ConfigError, match="several facts together"):
        edit_together(EDITOR, tiny_gpt2, [one_token], resources=resources())  # two layers are not two answers
    for settings in ({"lr": 0.0}, {"modules": []}, {"modules": ["a"], "layers": [1]}, {"layers": [2, 1]}):
        with pytest.raises(ConfigError, match=r"editor\."):
            UltraEdit(**settings)  # type: ignore[arg-type]


def test_running_moments_do_not_depend_on_batches() -> None:
    values = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    values[:, 2] = 4.0
    parts = RunningMoments.empty(3).with_rows(values[:1]).with_rows(values[1:13]).with_rows(values[13:])
    torch.testing.assert_close(parts.mean, values.double().mean(0))
    torch.testing.assert_close(parts.squares / 19, values.double().var(0))
    standardized = parts.standardized(values)
    torch.testing.assert_close(standardized[:, :2].std(0), torch.ones(2, dtype=torch.float64))
    assert bool((standardized[:, 2] == 0).all()), "a column that never varied"
    with pytest.raises(ValueError, match="1 rows"):
        RunningMoments.empty(3).with_rows(values[:1]).standardized(values)
