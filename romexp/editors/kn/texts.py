"""What a request becomes for Knowledge Neurons: prompts, and the tokens of both objects (SPEC §4.2, §1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from romexp.editors.kn.attribution import Text
from romexp.errors import RecordError
from romexp.facts import EditRequest, fill
from romexp.lm.batching import by_length
from romexp.lm.forward import Row, check_length, logits, make_pass, run
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
    lm: LanguageModel, requests: Sequence[EditRequest], templates: Sequence[str], *, leading_space: bool
) -> list[FactTexts]:
    """Tokens of every request; prompts in the order of `templates`.

    Args:
        leading_space: tokens of the objects as they stand after the prompt; off, of the bare words.

    Raises:
        RecordError: an object or a prompt without tokens, or a prompt longer than the model's context.
    """
    facts = []
    for index, request in enumerate(requests):
        try:
            filled = [fill(template, request.text) for template in templates]
            prompts = tuple(encoding.ids for encoding in encode(lm.tokenizer, filled))
            if not all(prompts):
                raise RecordError("the prompt has no token", field="prompt")
            for prompt in prompts:
                check_length(lm, len(prompt))
            facts.append(
                FactTexts(
                    prompts=prompts,
                    truth=_object(lm, request, "target_true", leading_space=leading_space),
                    target=_object(lm, request, "target_new", leading_space=leading_space),
                )
            )
        except RecordError as error:
            raise error.at(index) from error
    return facts


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

    Raises:
        RecordError: the extended prompt is longer than the model's context.
    """
    if not extend_prompt:
        return [[[Text(ids=prompt, targets=fact.truth)] for prompt in fact.prompts] for fact in facts]
    for index, fact in enumerate(facts):
        try:
            check_length(lm, max(map(len, fact.prompts)) + len(fact.truth) - 1)
        except RecordError as error:
            raise error.at(index) from error
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
        for group in by_length([len(texts[i]) for i in going], max_tokens=batch_tokens(lm)):
            rows = [going[place] for place in group]
            final = run(lm, make_pass(lm, [Row.text(texts[i]) for i in rows]))
            last = torch.tensor([len(texts[i]) - 1 for i in rows], device=final.device)
            best = logits(lm, final[torch.arange(len(rows), device=final.device), last]).argmax(dim=-1)
            for i, token in zip(rows, best.tolist(), strict=True):
                texts[i].append(token)
    return [tuple(text) for text in texts]
