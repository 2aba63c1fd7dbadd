"""docs/method.md §5.2 and §5.6 spelt out, one text at a time, nothing shared. Evaluators are held against it."""

from __future__ import annotations

import torch

from romexp.lm.model import LanguageModel


def next_token_logits(lm: LanguageModel, ids: list[int]) -> torch.Tensor:
    """(seq × vocabulary) of one text."""
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([ids])).logits[0]


def nll(lm: LanguageModel, prompt: str, target: str) -> float:
    """Mean -log p of the target's tokens, the prompt's length counted by tokenizing it alone."""
    start = len(lm.tokenizer(prompt)["input_ids"])
    ids = lm.tokenizer(f"{prompt} {target}")["input_ids"]
    log_probs = next_token_logits(lm, ids).log_softmax(dim=-1)
    return -sum(float(log_probs[i - 1, ids[i]]) for i in range(start, len(ids))) / (len(ids) - start)


def correct(lm: LanguageModel, prompt: str, answer: str) -> list[bool]:
    """Per answer token: is the arg-max after prompt + decode(y_<i) the first token of decode(y_i) tokenized again?"""

    def tokenize(text: str) -> list[int]:
        return lm.tokenizer(text, add_special_tokens=False)["input_ids"]

    tokens = tokenize(f" {answer}")
    result = []
    for i, token in enumerate(tokens):
        context = lm.tokenizer(prompt + lm.tokenizer.decode(tokens[:i]))["input_ids"]
        expected = tokenize(lm.tokenizer.decode([token]))[0]
        result.append(int(next_token_logits(lm, context)[-1].argmax()) == expected)
    return result
