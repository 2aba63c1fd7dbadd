"""Families besides those that every test runs on: scores, edits, texts and traces equal whole passes of the model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

import naive_lm
import numpy as np
import pytest
import torch
from conftest import FAMILIES, MORE_FAMILIES, assert_weights, weights_of

from romexp.editors.base import Edit, Resources
from romexp.editors.kn.editor import KnowledgeNeurons
from romexp.editors.rome.editor import Rome
from romexp.errors import ConfigError
from romexp.facts import EditRequest
from romexp.lm.apply_delta import applied
from romexp.lm.architecture import ARCHITECTURES
from romexp.lm.hooks import capture
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.sampling import Sampler, clean, generate
from romexp.lm.scoring import score
from romexp.lm.tokens import encode
from romexp.lm.weight_delta import LowRank
from romexp.tracing.noise import Gaussian
from romexp.tracing.prompt import TracedPrompt, prepare_prompts
from romexp.tracing.tracer import Tracer

PROMPT, TARGETS = "The mother tongue of Danielle Darrieux is", ("English language", "French")
REQUEST = EditRequest(
    subject="Danielle Darrieux", prompt="The mother tongue of {} is", target_new="English", target_true="French"
)
ROME = Rome(layer=1, mom2_adjustment=False, v_num_grad_steps=8, context_templates=["{}", "The phone. {}"])
RESOURCES = Resources(second_moment=None, cache_dir=None, seed=0)  # type: ignore[arg-type]
NOISE, SAMPLES = 0.5, 3
T = TypeVar("T")


@pytest.fixture(scope="module", params=list(MORE_FAMILIES))
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> Iterator[LanguageModel]:
    lm = tiny_factory(request.param)
    before = weights_of(lm)
    yield lm
    assert_weights(lm, before)


@pytest.fixture(scope="module")
def edit(lm: LanguageModel) -> Edit:
    (edit,) = ROME(lm, [REQUEST], resources=RESOURCES)
    assert isinstance(edit, Edit)
    return edit


def plain_nlls(lm: LanguageModel) -> list[list[float]]:
    return [naive_lm.target_nlls(lm, PROMPT, target)[0] for target in TARGETS]


def test_every_built_in_family_is_tested_here_or_by_every_test() -> None:
    assert {*FAMILIES, *MORE_FAMILIES} == set(ARCHITECTURES)


def test_scores(lm: LanguageModel, edit: Edit) -> None:
    """Both targets follow the prompt in one row, before and after the edit, which is laid over the model."""
    query = Query(prompt=PROMPT, targets=TARGETS)
    before, after = score(lm, [query, query], deltas=[None, edit.delta])
    for scores, expected in ((before, plain_nlls(lm)), (after, _written(lm, edit, plain_nlls))):
        for one, nlls in zip(scores, expected, strict=True):  # type: ignore[arg-type]
            assert one.token_nlls == pytest.approx(nlls, abs=1e-4)
    assert abs(after[1].nll - before[1].nll) > 1e-3  # type: ignore[index, union-attr]


def _written(lm: LanguageModel, edit: Edit, measure: Callable[[LanguageModel], T]) -> T:
    with applied(lm, edit.delta):
        return measure(lm)


def test_the_edited_matrix_puts_out_the_target_value(lm: LanguageModel, edit: Edit) -> None:
    (encoding,) = encode(lm.tokenizer, [PROMPT])
    at = encoding.first_token_after(len(PROMPT) - len(" is") - 1)
    path = lm.architecture.mlp_out_name(1)

    def output(lm: LanguageModel) -> torch.Tensor:
        with torch.no_grad(), capture(lm, [path]) as seen:
            lm.model(input_ids=torch.tensor([encoding.ids]))
        return seen[path][0, at]

    ((_, term),) = edit.delta.terms.items()
    assert isinstance(term, LowRank)
    change = _written(lm, edit, output) - output(lm)
    assert torch.nn.functional.cosine_similarity(change, term.right[:, 0], dim=0).abs() > 0.999


def test_texts(lm: LanguageModel, edit: Edit) -> None:
    def plain(lm: LanguageModel) -> str:
        ids = naive_lm.tokens(lm, PROMPT)
        return clean(lm, naive_lm.sample(lm, ids, uniforms=[0.0] * 8, top_k=1))

    sampler = Sampler(max_length=len(naive_lm.tokens(lm, PROMPT)) + 8, top_k=1)
    texts = generate(lm, [PROMPT, PROMPT], sampler=sampler, seeds=[0, 1], deltas=[None, edit.delta])
    for text, expected in zip(texts, (plain(lm), _written(lm, edit, plain)), strict=True):
        assert text == expected
        assert text != PROMPT  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("kind", ["hidden", "mlp", "attn"])
def test_a_cell_of_a_trace(lm: LanguageModel, kind: str) -> None:
    (prompt,) = prepare_prompts(lm, [PROMPT], ["Danielle Darrieux"])
    assert isinstance(prompt, TracedPrompt)
    tracer = Tracer(samples=SAMPLES, window=2, kinds=[kind], severed=False)  # type: ignore[list-item]
    (trace,) = tracer(lm, [prompt], noise=Gaussian(scale=NOISE))
    token, layer = (prompt.subject_range[1] if kind == "mlp" else len(prompt.ids)) - 1, 2
    assert trace.low_score == pytest.approx(cell(lm, prompt, []), abs=1e-5)
    row = lm.architecture
    paths = {
        "hidden": [row.block_name(layer)],
        "mlp": [row.mlp_name(layer - 1), row.mlp_name(layer)],
        "attn": [row.attn_name(layer - 1), row.attn_name(layer)],
    }[kind]
    restored = cell(lm, prompt, [(token, path) for path in paths])
    assert trace.grids[kind][token][layer] == pytest.approx(restored, rel=1e-4)
    assert restored != pytest.approx(trace.low_score, rel=1e-3)  # a control: restoring matters


@torch.no_grad()
def cell(lm: LanguageModel, prompt: TracedPrompt, restore: list[tuple[int, str]]) -> float:
    """One whole pass, row 0 clean and rows 1…n corrupted, in which outputs of the corrupted rows are made clean."""
    noise = torch.from_numpy(
        np.random.RandomState(1).randn(SAMPLES, prompt.subject_range[1] - prompt.subject_range[0], lm.hidden_size)
    )

    def corrupt(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[1:, slice(*prompt.subject_range)] += (noise * NOISE).float()
        return output

    def made_clean(token: int) -> Callable[..., None]:
        def hook(module: object, args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            x = output[0] if isinstance(output, tuple) else output
            x[1:, token] = x[0, token]

        return hook

    handles = [lm.module(lm.architecture.embedding).register_forward_hook(corrupt)]
    handles += [lm.module(path).register_forward_hook(made_clean(token)) for token, path in restore]
    try:
        scores = lm.model(input_ids=torch.tensor([prompt.ids] * (SAMPLES + 1)), use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return float(scores[1:, -1].softmax(-1).mean(0)[prompt.answer])


def test_captured_tensors_are_not_written_into(lm: LanguageModel) -> None:
    """Falcon adds the attention's output to the MLP's in place."""
    row = lm.architecture
    with torch.no_grad(), capture(lm, [row.mlp_name(1), row.mlp_out_name(1)]) as seen:
        lm.model(input_ids=torch.tensor([[5, 9, 260, 41]]))
    assert torch.equal(seen[row.mlp_name(1)], seen[row.mlp_out_name(1)])


def test_knowledge_neurons_are_refused_where_one_matrix_holds_the_gate(
    tiny_factory: Callable[..., LanguageModel],
) -> None:
    with pytest.raises(ConfigError, match=r"64 neurons of an MLP, but mlp\.gate_up_proj of 'tiny-phi3' gives 128"):
        KnowledgeNeurons(steps=2)(tiny_factory("phi3"), [REQUEST], resources=RESOURCES)


@pytest.mark.parametrize(("family", "dtype"), [*itertools.product(MORE_FAMILIES, [torch.float16, torch.bfloat16])])
def test_half_precision_is_not_refused(
    tiny_factory: Callable[..., LanguageModel], family: str, dtype: torch.dtype
) -> None:
    assert tiny_factory(family, dtype=dtype).dtype == dtype
