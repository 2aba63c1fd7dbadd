from __future__ import annotations

import numpy as np
import pytest
import torch

from romexp.lm.model import LanguageModel
from romexp.tracing.gradients import integrated_gradients
from romexp.tracing.prompt import prepare_prompts

TEXTS = ("The mother tongue of Danielle Darrieux is", "Steve Jobs was the founder of")
SUBJECTS = ("Danielle Darrieux", "Steve Jobs")


def probability(lm: LanguageModel, ids: tuple[int, ...], answer: int, alpha: float) -> float:
    def hook(module, args, output):
        return output * alpha

    handle = lm.module(lm.architecture.embedding).register_forward_hook(hook)
    try:
        with torch.no_grad():
            return float(lm.model(input_ids=torch.tensor([list(ids)])).logits[0, -1].softmax(-1)[answer])
    finally:
        handle.remove()


def naive(lm: LanguageModel, ids: tuple[int, ...], answer: int, *, steps: int) -> torch.Tensor:
    """The formula with one pass a point, through `inputs_embeds`."""
    embedding = lm.module(lm.architecture.embedding)(torch.tensor([list(ids)]))
    total = torch.zeros(len(ids))
    for node, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
        x = (embedding * (node + 1) / 2).requires_grad_(True)
        p = lm.model(inputs_embeds=x).logits[0, -1].softmax(-1)[answer]
        (gradient,) = torch.autograd.grad(p, x)
        total += weight / 2 * (embedding * gradient).sum(-1)[0]
    return total


def test_attributions_equal_the_formula_on_every_family(tiny_lm: LanguageModel) -> None:
    prompts = prepare_prompts(tiny_lm, TEXTS, SUBJECTS)
    found = integrated_gradients(tiny_lm, prompts, steps=6)  # type: ignore[arg-type]
    for prompt, attribution in zip(prompts, found, strict=True):
        expected = naive(tiny_lm, prompt.ids, prompt.answer, steps=6)
        assert attribution == pytest.approx(expected.tolist(), abs=1e-5)
        assert float(expected.abs().max()) > 1e-3


def test_attributions_add_up_to_the_change_in_probability(tiny_gpt2: LanguageModel) -> None:
    prompts = prepare_prompts(tiny_gpt2, TEXTS, SUBJECTS)
    found = integrated_gradients(tiny_gpt2, prompts, steps=100)  # type: ignore[arg-type]
    for prompt, attribution in zip(prompts, found, strict=True):
        whole, none = (probability(tiny_gpt2, prompt.ids, prompt.answer, alpha) for alpha in (1, 0))
        assert sum(attribution) == pytest.approx(whole - none, abs=2e-3)


def test_batches_do_not_change_attributions(tiny_gpt2: LanguageModel) -> None:
    prompts = prepare_prompts(tiny_gpt2, ["Anna plays the", "Steve Jobs was the founder of"], ["Anna", "Steve Jobs"])
    one = integrated_gradients(tiny_gpt2, prompts, steps=20)  # type: ignore[arg-type]
    small = integrated_gradients(tiny_gpt2, prompts, steps=20, max_batch_tokens=1)  # type: ignore[arg-type]
    for a, b in zip(one, small, strict=True):
        assert a == pytest.approx(b, abs=1e-6)
