"""Noise on a subject wherever it stands."""

from __future__ import annotations

import torch

from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.hooks import capture, patch
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode
from romexp.localization.noised_subject import noised_subject, one_sample, subject_noises
from romexp.tracing.corruption import corrupt
from romexp.tracing.noise import Gaussian
from romexp.tracing.prompt import TracedPrompt, prepare_prompts


def prompt_of(lm: LanguageModel) -> TracedPrompt:
    (prompt,) = prepare_prompts(lm, ["The mother tongue of Danielle Darrieux is"], ["Danielle Darrieux"])
    assert isinstance(prompt, TracedPrompt)
    return prompt


@torch.no_grad()
def embedded(lm: LanguageModel, ids: tuple[int, ...], rows: int = 1) -> torch.Tensor:
    """What the first block gets."""
    first = lm.architecture.block_name(0)
    with capture(lm, [first], at="input") as seen:
        run_blocks(lm, make_inputs(lm, [Row.text(ids)] * rows))
    return seen[first]


def test_the_fact_itself_gets_the_noise_of_its_trace(tiny_lm: LanguageModel) -> None:
    prompt = prompt_of(tiny_lm)
    noises = subject_noises(tiny_lm, prompt, Gaussian(scale=0.3), samples=3)
    begin, end = prompt.subject_range
    change = corrupt([prompt], [noises[prompt.ids[begin:end]]], samples=3, extra_token=0, replace=False)
    with patch(tiny_lm, {tiny_lm.architecture.embedding: change}):
        expected = embedded(tiny_lm, prompt.ids, 3)
    with noised_subject(tiny_lm, noises):
        found = embedded(tiny_lm, prompt.ids, 3)
    assert torch.equal(found, expected)
    assert not torch.equal(found, embedded(tiny_lm, prompt.ids, 3))  # control, and the hook is gone
    with noised_subject(tiny_lm, one_sample(noises, 2)):
        assert torch.allclose(embedded(tiny_lm, prompt.ids), expected[2:], atol=1e-6)


def test_other_texts_are_noised_at_the_subject_alone(tiny_gpt2: LanguageModel) -> None:
    noises = subject_noises(tiny_gpt2, prompt_of(tiny_gpt2), Gaussian(scale=0.3), samples=1)
    for text, noised in (
        ("Paris, Paris! The mother tongue of Danielle Darrieux is", True),
        ("Danielle Darrieux is a", True),  # tokenized in another way: no space before it
        ("Steve Jobs was the founder of", False),
    ):
        (encoding,) = encode(tiny_gpt2.tokenizer, [text])
        plain = embedded(tiny_gpt2, encoding.ids)
        with noised_subject(tiny_gpt2, noises):
            changed = (embedded(tiny_gpt2, encoding.ids) != plain).any(-1)[0]
        tokens = [i for i, (start, stop) in enumerate(encoding.offsets) if _overlaps(text, start, stop)]
        assert changed.nonzero().flatten().tolist() == (tokens if noised else [])


def _overlaps(text: str, start: int, stop: int) -> bool:
    begin = text.find("Danielle Darrieux")
    return begin >= 0 and start < begin + len("Danielle Darrieux") and stop > begin
