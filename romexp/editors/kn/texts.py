"""What a request becomes for Knowledge Neurons: prompts, and the tokens of both objects (docs/method.md §4.2, §1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from romexp.editors.kn.attribution import Text
from romexp.errors import RecordError, result_or_error
from romexp.facts import EditRequest, fill
from romexp.lm.batching import batched
from romexp.lm.forward import Row, check_length, logits, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.scoring import batch_tokens, target_start
from romexp.lm.tokens import encode


@dataclass(frozen=True, kw_only=True)
class FactTexts:
    """One request in tokens.

    Attributes:
        prompts: the filled prompt in each context, the bare one first.
        truth: `target_true`, the ground truth whose probability is attributed.
        target: `target_new`.
    """

    prompts: tuple[tuple[int, ...], ...]
    truth: tuple[int, ...]
    target: tuple[int, ...]


def fact_texts(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    templates: Sequence[str],
    *,
    leading_space: bool,
    extend_prompt: bool,
) -> list[FactTexts | RecordError]:
    """Tokens of every request; prompts in the order of `templates`.

    Args:
        leading_space: tokens of the objects as they stand after the prompt; off, of the bare words.
        extend_prompt: whether `attributed_texts` will put tokens behind the prompt, for which there must be room.

    Returns:
        In the place of a request with an object or a prompt without tokens, or a prompt longer than the model's
        context, its error.
    """

    def texts_of(request: EditRequest) -> FactTexts:
        filled = [fill(template, request.text) for template in templates]
        prompts = tuple(encoding.ids for encoding in encode(lm.tokenizer, filled))
        if not all(prompts):
            raise RecordError("the prompt has no token", field="prompt")
        truth = _object(lm, request, "target_true", leading_space=leading_space)
        added = len(truth) - 1 if extend_prompt else 0
        check_length(lm, max(map(len, prompts)) + added)
        target = _object(lm, request, "target_new", leading_space=leading_space)
        return FactTexts(prompts=prompts, truth=truth, target=target)

    return [result_or_error(partial(texts_of, request)) for request in requests]


def _object(lm: LanguageModel, request: EditRequest, field: str, *, leading_space: bool) -> tuple[int, ...]:
    word = getattr(request, field).strip()
    if leading_space and word:
        (encoding,) = encode(lm.tokenizer, [f"{request.text} {word}"])
        return encoding.ids[target_start(encoding, len(request.text)) :]
    ids = tuple(lm.tokenizer(word, add_special_tokens=False)["input_ids"]) if word else ()
    if not ids:
        raise RecordError(f"{field} is empty", field=field)
    return ids


def attributed_texts(lm: LanguageModel, facts: Sequence[FactTexts], *, extend_prompt: bool) -> list[list[list[Text]]]:
    """By request and prompt, the texts whose scores are averaged.

    One text that scores every token of the ground truth at once; with `extend_prompt` one text a token, each
    followed by as many of the model's own most likely tokens as it has tokens before it.
    """
    if not extend_prompt:
        return [[[Text(ids=prompt, targets=fact.truth)] for prompt in fact.prompts] for fact in facts]
    greedy = iter(_continued(lm, [(prompt, len(fact.truth) - 1) for fact in facts for prompt in fact.prompts]))
    return [
        [_one_a_token(prompt=prompt, whole=next(greedy), truth=fact.truth) for prompt in fact.prompts] for fact in facts
    ]


def _one_a_token(*, prompt: tuple[int, ...], whole: tuple[int, ...], truth: tuple[int, ...]) -> list[Text]:
    return [Text(ids=whole[: len(prompt) + i], targets=(token,)) for i, token in enumerate(truth)]


@torch.no_grad()
def _continued(lm: LanguageModel, prompts: Sequence[tuple[tuple[int, ...], int]]) -> list[tuple[int, ...]]:
    """Each prompt with so many of the model's most likely tokens behind it."""
    texts = [list(prompt) for prompt, _ in prompts]
    for step in range(max((count for _, count in prompts), default=0)):
        going = [i for i, (_, count) in enumerate(prompts) if step < count]
        following = batched(
            partial(_next_tokens, lm),
            [tuple(texts[i]) for i in going],
            [len(texts[i]) for i in going],
            max_tokens=batch_tokens(lm),
        )
        for i, token in zip(going, following, strict=True):
            texts[i].append(token)
    return [tuple(text) for text in texts]


def _next_tokens(lm: LanguageModel, texts: Sequence[tuple[int, ...]]) -> list[int]:
    """The most likely token after each text."""
    final = run_blocks(lm, make_inputs(lm, [Row.text(text) for text in texts]))
    last = torch.tensor([len(text) - 1 for text in texts], device=final.device)
    best: list[int] = logits(lm, final[torch.arange(len(texts), device=final.device), last]).argmax(dim=-1).tolist()
    return best
