from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from naive_trace import cell_score, grid, severed

from romexp.errors import ConfigError, RecordError
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.tracing import trace_batch
from romexp.tracing.cells import Resumption, window_layers
from romexp.tracing.noise import Gaussian
from romexp.tracing.prompt import TracedPrompt, prepare_prompts
from romexp.tracing.tracer import Tracer

PROMPTS = (
    "The mother tongue of Danielle Darrieux is",
    "Steve Jobs was the founder of",
    "It is said that the Eiffel Tower is located in",
)
SUBJECTS = ("Danielle Darrieux", "Steve Jobs", "Eiffel Tower")
SCALE, SAMPLES, WINDOW = 0.5, 3, 3


def prepared(lm: LanguageModel) -> list[TracedPrompt]:
    prompts = prepare_prompts(lm, PROMPTS, SUBJECTS)
    assert all(isinstance(p, TracedPrompt) for p in prompts)
    return prompts  # type: ignore[return-value]


def tracer(**changes: object) -> Tracer:
    return Tracer(**{"samples": SAMPLES, "window": WINDOW, **changes})  # type: ignore[arg-type]


def values(traces, name: str) -> np.ndarray:
    return np.concatenate([np.array(t.grids[name], dtype=float).ravel() for t in traces])


@pytest.mark.parametrize("kind", ["hidden", "mlp", "attn"])
def test_every_cell_equals_one_whole_pass_for_it_on_every_family(tiny_lm: LanguageModel, kind: str) -> None:
    prompts = prepared(tiny_lm)
    traces = tracer(kinds=[kind], severed=False)(tiny_lm, prompts, noise=Gaussian(scale=SCALE))
    for prompt, trace in zip(prompts[:2], traces, strict=False):
        settings = {"scale": SCALE, "samples": SAMPLES}
        expected = grid(tiny_lm, prompt.ids, prompt.subject_range, prompt.answer, kind=kind, window=WINDOW, **settings)
        low = cell_score(tiny_lm, prompt.ids, prompt.subject_range, prompt.answer, [], **settings)
        assert trace.low_score == pytest.approx(low, abs=1e-5)
        np.testing.assert_allclose(np.array(trace.grids[kind], dtype=float), expected, atol=1e-5)
        assert np.ptp(expected) > 1e-3  # the control: restoring matters somewhere


@pytest.mark.parametrize("second_draw", [False, True])
@pytest.mark.parametrize("kind", ["mlp", "attn"])
def test_severed_curves_equal_the_two_pass_procedure(tiny_lm: LanguageModel, kind: str, second_draw: bool) -> None:
    prompts = prepared(tiny_lm)
    traces = tracer(kinds=["hidden"], severed_second_draw=second_draw)(tiny_lm, prompts, noise=Gaussian(scale=SCALE))
    expected = severed(
        tiny_lm,
        prompts[0].ids,
        prompts[0].subject_range,
        prompts[0].answer,
        kind=kind,
        second_draw=second_draw,
        scale=SCALE,
        samples=SAMPLES,
    )
    np.testing.assert_allclose(traces[0].severed[kind], expected, atol=1e-5)
    ordinary = traces[0].grids["hidden"][prompts[0].subject_range[1] - 1]
    assert not np.allclose(traces[0].severed[kind], np.array(ordinary, dtype=float), atol=1e-5)


def test_the_two_draws_of_the_severed_run_differ(tiny_gpt2: LanguageModel) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=SCALE)
    one = tracer(kinds=[])(tiny_gpt2, prompts, noise=noise)[0].severed["mlp"]
    two = tracer(kinds=[], severed_second_draw=True)(tiny_gpt2, prompts, noise=noise)[0].severed["mlp"]
    assert not np.allclose(one, two, atol=1e-4)


def test_without_noise_nothing_is_lost_and_nothing_restored(tiny_gpt2: LanguageModel) -> None:
    prompts = prepared(tiny_gpt2)
    for prompt, trace in zip(prompts, tracer()(tiny_gpt2, prompts, noise=Gaussian(scale=0.0)), strict=True):
        assert trace.low_score == pytest.approx(prompt.high_score, abs=1e-5)
        for cells in trace.grids.values():
            np.testing.assert_allclose(np.array(cells, dtype=float), prompt.high_score, atol=1e-5)
    loud = tracer()(tiny_gpt2, prompts, noise=Gaussian(scale=SCALE))
    assert any(abs(t.low_score - p.high_score) > 1e-3 for p, t in zip(prompts, loud, strict=True))


def test_the_last_state_of_the_last_token_is_the_whole_answer(tiny_gpt2: LanguageModel) -> None:
    prompts = prepared(tiny_gpt2)
    for prompt, trace in zip(prompts, tracer()(tiny_gpt2, prompts, noise=Gaussian(scale=SCALE)), strict=True):
        assert trace.grids["hidden"][-1][-1] == pytest.approx(prompt.high_score, abs=1e-5)
        begin, end = prompt.subject_range
        left = np.array(trace.grids["hidden"][:begin], dtype=float)
        np.testing.assert_allclose(left, trace.low_score, atol=1e-7)
        # The final block's state at an earlier token is read by nobody.
        assert trace.grids["hidden"][end - 1][-1] == pytest.approx(trace.low_score, abs=1e-5)


@pytest.mark.parametrize("budget", [1, 64, 400])
def test_batches_do_not_change_a_trace(tiny_gpt2: LanguageModel, budget: int) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=SCALE)
    together = tracer()(tiny_gpt2, prompts, noise=noise)
    small = tracer(max_batch_tokens=budget)(tiny_gpt2, prompts[::-1], noise=noise)[::-1]
    for name in ("hidden", "mlp", "attn"):
        np.testing.assert_allclose(values(together, name), values(small, name), atol=1e-5)
    for a, b in zip(together, small, strict=True):
        np.testing.assert_allclose(a.severed["mlp"], b.severed["mlp"], atol=1e-5)


def test_cells_of_all_layers_share_passes(tiny_gpt2: LanguageModel) -> None:
    """Each layer, and each length, would need passes of its own if cells did not join passes that others began."""
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=SCALE)
    calls = {}
    for budget in (None, 1):
        rows: list[int] = []
        handle = tiny_gpt2.block(3).register_forward_pre_hook(lambda _m, args, rows=rows: rows.append(len(args[0])))
        try:
            tracer(kinds=["mlp"], severed=False, max_batch_tokens=budget)(tiny_gpt2, prompts, noise=noise)
        finally:
            handle.remove()
        calls[budget] = len(rows)
    n_cells = sum(len(p.ids) - p.subject_range[0] for p in prompts)
    assert calls[None] <= 12  # the runs of the prompts, the last tokens, and a few passes over longer suffixes
    assert calls[1] > 3 * n_cells  # a control: one pass a cell and layer


def test_out_of_memory_halves_and_goes_on(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, noise = prepared(tiny_gpt2)[:2], Gaussian(scale=SCALE)
    hidden = tracer(severed=False, kinds=["hidden"])
    expected = hidden(tiny_gpt2, prompts, noise=noise)
    whole, refused = Resumption._batch, []

    def small_memory(self, cells, *rest):
        if len(cells) > 8:
            refused.append(len(cells))
            raise torch.OutOfMemoryError("no room")
        return whole(self, cells, *rest)

    monkeypatch.setattr(Resumption, "_batch", small_memory)
    found = hidden(tiny_gpt2, prompts, noise=noise)
    assert refused
    np.testing.assert_allclose(values(expected, "hidden"), values(found, "hidden"), atol=1e-5)


def test_out_of_memory_in_the_base_runs_halves_the_prompts(
    tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=SCALE)
    hidden = tracer(severed=False, kinds=["hidden"])
    expected = hidden(tiny_gpt2, prompts, noise=noise)
    whole, refused = trace_batch.corrupted_run, []

    def small_memory(lm, chosen, *rest, **settings):
        if len(chosen) > 1:
            refused.append(len(chosen))
            raise torch.OutOfMemoryError("no room")
        return whole(lm, chosen, *rest, **settings)

    monkeypatch.setattr(trace_batch, "corrupted_run", small_memory)
    found = hidden(tiny_gpt2, prompts, noise=noise)
    assert refused
    np.testing.assert_allclose(values(expected, "hidden"), values(found, "hidden"), atol=1e-5)


@pytest.mark.parametrize("window", [1, 2, 10])
def test_clipped_windows_of_a_shallow_model(tiny_gpt2: LanguageModel, window: int) -> None:
    """A width beyond the depth makes windows the same for several layers; a width of 1 ends in the last layer alone."""
    prompts = prepared(tiny_gpt2)
    traces = tracer(window=window, severed=False)(tiny_gpt2, prompts, noise=Gaussian(scale=SCALE))
    prompt, trace = prompts[0], traces[0]
    settings = {"scale": SCALE, "samples": SAMPLES, "window": window}
    for kind in ("mlp", "attn"):
        expected = grid(tiny_gpt2, prompt.ids, prompt.subject_range, prompt.answer, kind=kind, **settings)
        np.testing.assert_allclose(np.array(trace.grids[kind], dtype=float), expected, atol=1e-5)


def test_the_last_subject_token_alone_gives_the_same_row(tiny_gpt2: LanguageModel) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=SCALE)
    whole = tracer(severed=False)(tiny_gpt2, prompts, noise=noise)
    last = tracer(severed=False, token_range="subject_last")(tiny_gpt2, prompts, noise=noise)
    for prompt, a, b in zip(prompts, whole, last, strict=True):
        token = prompt.subject_range[1] - 1
        np.testing.assert_allclose(np.array(a.grids["mlp"][token]), np.array(b.grids["mlp"][token]), atol=1e-5)
        assert all(cell is None for i, row in enumerate(b.grids["mlp"]) if i != token for cell in row)


def test_replacing_embeddings_and_the_low_score_that_does_not(tiny_gpt2: LanguageModel) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=SCALE)
    p = prompts[0]
    plain = {"scale": SCALE, "samples": SAMPLES}
    added = cell_score(tiny_gpt2, p.ids, p.subject_range, p.answer, [], **plain)
    replaced = cell_score(tiny_gpt2, p.ids, p.subject_range, p.answer, [], replace=True, **plain)
    assert added != pytest.approx(replaced, abs=1e-4)
    quirk = tracer(replace=True, severed=False)(tiny_gpt2, prompts, noise=noise)[0]
    fair = tracer(replace=True, severed=False, replace_in_low_score=True)(tiny_gpt2, prompts, noise=noise)[0]
    assert quirk.low_score == pytest.approx(added, abs=1e-5)
    assert fair.low_score == pytest.approx(replaced, abs=1e-5)
    expected = grid(tiny_gpt2, p.ids, p.subject_range, p.answer, kind="mlp", window=WINDOW, replace=True, **plain)
    np.testing.assert_allclose(np.array(fair.grids["mlp"], dtype=float), expected, atol=1e-5)
    assert fair.grids == quirk.grids


def test_extra_tokens_are_corrupted_too_but_never_beyond_the_prompt(tiny_gpt2: LanguageModel) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=SCALE)
    prompt = prompts[2]
    begin, end = prompt.subject_range
    for extra, last in ((0, end), (1, end + 1), (99, len(prompt.ids))):
        settings = {"scale": SCALE, "samples": SAMPLES}
        expected = cell_score(tiny_gpt2, prompt.ids, (begin, last), prompt.answer, [], **settings)
        found = tracer(extra_token=extra, severed=False, kinds=["mlp"])(tiny_gpt2, prompts, noise=noise)[2]
        assert found.low_score == pytest.approx(expected, abs=1e-5)
        cells = grid(tiny_gpt2, prompt.ids, (begin, last), prompt.answer, kind="mlp", window=WINDOW, **settings)
        np.testing.assert_allclose(np.array(found.grids["mlp"], dtype=float), cells, atol=1e-5)
    assert len(prompt.ids) > end + 1


def test_a_stream_for_each_case(tiny_gpt2: LanguageModel) -> None:
    prompts, noise = prepared(tiny_gpt2), Gaussian(scale=SCALE)
    own = tracer(seed_per_case=True, severed=False)
    first = own(tiny_gpt2, prompts, noise=noise, seeds=[5, 6, 7])
    again = own(tiny_gpt2, prompts[:1], noise=noise, seeds=[5])
    other = own(tiny_gpt2, prompts[:1], noise=noise, seeds=[8])
    np.testing.assert_allclose(values(first[:1], "hidden"), values(again, "hidden"), atol=1e-5)
    assert not np.allclose(values(again, "hidden"), values(other, "hidden"), atol=1e-4)


def test_windows_of_the_code_and_of_the_paper() -> None:
    def window(layer: int, convention: str, width: int = 10) -> list[int]:
        return list(window_layers(layer, width=width, n_layers=48, convention=convention))

    assert window(20, "code") == list(range(15, 25))
    assert window(20, "paper") == list(range(16, 26))
    assert window(0, "code") == list(range(5))
    assert window(47, "code") == list(range(42, 48))
    assert window(20, "code", 3) == window(20, "paper", 3) == [19, 20, 21]
    assert window(20, "code", 1) == [20]


def test_prompts_that_cannot_be_traced_are_named(tiny_gpt2: LanguageModel) -> None:
    texts = [PROMPTS[0], PROMPTS[0], PROMPTS[0], PROMPTS[0] + " far" * 200]
    good, absent, empty, long = prepare_prompts(tiny_gpt2, texts, [SUBJECTS[0], "Nobody", " ", SUBJECTS[0]])
    assert isinstance(long, RecordError)
    assert "sees 128" in long.reason
    assert isinstance(good, TracedPrompt)
    assert isinstance(absent, RecordError)
    assert isinstance(empty, RecordError)
    assert "Nobody" in absent.reason
    assert absent.field == "subject"
    (alone,) = prepare_prompts(tiny_gpt2, texts[:1], SUBJECTS[:1])
    assert isinstance(alone, TracedPrompt)
    assert (good.ids, good.subject_range, good.answer) == (alone.ids, alone.subject_range, alone.answer)
    assert good.high_score == pytest.approx(alone.high_score, abs=1e-6)


@pytest.mark.parametrize(
    "bad", [{"samples": 0}, {"window": 0}, {"kinds": ["mpl"]}, {"window_convention": "mine"}, {"max_batch_tokens": 0}]
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="tracer"):
        tracer(**bad)


def test_the_authors_numbers(golden) -> None:
    lm = PretrainedModel(path=str(golden / "model")).load()
    facts = json.loads((golden / "trace.json").read_text())
    arrays = np.load(golden / "trace.npz")
    prompts = prepare_prompts(lm, [f["prompt"] for f in facts], [f["subject"] for f in facts])
    own = Tracer(window=3, severed_second_draw=True)
    traces = own(lm, prompts, noise=Gaussian(scale=0.2831271216273308))  # type: ignore[arg-type]
    for i, (fact, trace) in enumerate(zip(facts, traces, strict=True)):
        assert list(trace.prompt.subject_range) == fact["subject_range"]
        assert trace.prompt.answer == fact["answer_id"]
        assert trace.low_score == pytest.approx(fact["low_score"], abs=1e-5)
        assert trace.prompt.high_score == pytest.approx(fact["high_score"], abs=1e-5)
        for kind, cells in trace.grids.items():
            np.testing.assert_allclose(np.array(cells, dtype=float), arrays[f"{i}_{kind}"], atol=1e-5)
        for kind, curve in trace.severed.items():
            np.testing.assert_allclose(curve, arrays[f"{i}_severed_{kind}"], atol=1e-5)
