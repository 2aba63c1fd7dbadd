"""Prompts with their targets: tokens, errors, and losses that are those of scoring."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import FAMILIES
from edit_cases import REQUESTS
from learned_cases import texts_of

from romexp.editors.kn.texts import fact_texts
from romexp.editors.targets import EditText, edit_text, read_targets
from romexp.editors.values.texts import edit_texts
from romexp.errors import RecordError
from romexp.facts import EditRequest
from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import score
from romexp.lm.tokens import encode


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


def test_the_loss_is_that_of_scoring(lm: LanguageModel) -> None:
    texts = texts_of(lm)
    with torch.no_grad():
        final = run_blocks(lm, make_inputs(lm, [Row.text(text.ids) for text in texts]))
    said = read_targets(lm, final, [text.spots for text in texts])
    scored = [s for (s,) in score(lm, [Query(prompt=r.text, targets=(r.target_new,)) for r in REQUESTS])]
    assert said.nll().tolist() == pytest.approx([s.nll for s in scored], abs=1e-5)
    assert said.right().tolist() == [float(s.predictions == s.token_ids) for s in scored]


def test_white_space_around_the_target_does_not_count(tiny_gpt2: LanguageModel) -> None:
    plain = edit_text(tiny_gpt2, "Anna was", "Paris")
    assert edit_text(tiny_gpt2, "Anna was", " Paris ") == plain
    assert edit_text(tiny_gpt2, "Anna was", "French") != plain


@pytest.mark.parametrize("written", ["Paris", "Paris ", " Paris", "\nParis\t", "Paris\u00a0\n"])
def test_editors_and_metrics_clean_a_target_alike(tiny_gpt2: LanguageModel, written: str) -> None:
    """All of them have the tokens of "Anna was Paris"."""
    (encoding,) = encode(tiny_gpt2.tokenizer, ["Anna was Paris"])
    expected = encoding.ids[-len(edit_text(tiny_gpt2, "Anna was", "Paris").targets) :]
    request = EditRequest(subject="Anna", prompt="{} was", target_new=written, target_true=written)
    ((rewriting, _),) = edit_texts(tiny_gpt2, [request], ["{}"], fact_token="subject_last")  # type: ignore[misc]
    (of_kn,) = fact_texts(tiny_gpt2, [request], ["{}"], leading_space=True, extend_prompt=False)
    ((scored, once_more),) = score(tiny_gpt2, [Query(prompt="Anna was", targets=(written, "Paris"))])
    assert edit_text(tiny_gpt2, "Anna was", written).targets == expected
    assert rewriting.targets == expected
    assert of_kn.target == of_kn.truth == expected  # type: ignore[union-attr]
    assert scored.token_ids == expected
    assert scored.nll == once_more.nll


@pytest.mark.parametrize(
    ("prompt", "target", "field", "message"),
    [
        ("Anna was", " ", "target_new", "the new target is empty"),
        ("", "Paris", "prompt", "the prompt has no token"),
        ("Anna" + " the x" * 70, "Paris", "prompt", "sees 128 at once"),
    ],
)
def test_an_error_names_the_field(tiny_gpt2: LanguageModel, prompt: str, target: str, field: str, message: str) -> None:
    with pytest.raises(RecordError, match=message) as error:
        edit_text(tiny_gpt2, prompt, target)
    assert (error.value.index, error.value.field) == (None, field)


@pytest.mark.parametrize("start", [0, 3])
def test_a_text_without_prompt_or_target_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match="leaves no prompt or no target"):
        EditText(ids=(5, 6, 7), target_start=start)


def test_a_text_is_right_where_the_model_itself_says_every_token(tiny_gpt2: LanguageModel) -> None:
    ids = texts_of(tiny_gpt2)[0].ids
    with torch.no_grad():
        final = run_blocks(tiny_gpt2, make_inputs(tiny_gpt2, [Row.text(ids)] * 2))
        best = tiny_gpt2.model(input_ids=torch.tensor([ids])).logits[0].argmax(dim=-1).tolist()
    other = (best[3] + 1) % 10
    said = read_targets(tiny_gpt2, final, [((2, best[2]), (3, best[3])), ((2, best[2]), (3, other))])
    assert said.right().tolist() == [1.0, 0.0]
