"""Turns requests into the prompts and object tokens that Knowledge Neurons needs (docs/method.md §4.2, §1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from romexp.editors.kn.attribution import Text
from romexp.errors import RecordError, result_or_error
from romexp.facts import EditRequest, answer_text, fill, with_answer
from romexp.lm.forward import check_known, check_length
from romexp.lm.greedy import continue_greedily
from romexp.lm.model import LanguageModel
from romexp.lm.packing import target_start
from romexp.lm.tokens import bare_ids, encode


@dataclass(frozen=True, kw_only=True)
class FactTexts:
    """One request in tokens.

    Attributes:
        prompts: the filled prompt in each context; the first is the bare prompt.
        truth: tokens of the true object (`target_true`), whose probability is attributed.
        target: tokens of the new object (`target_new`).
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
    """Tokenize every request.

    Args:
        templates: context templates, in the order of the prompts.
        leading_space: take the objects' tokens with a space before the word; if false, those of the bare word.
        extend_prompt: if true, `attributed_texts` will extend the prompts, so that their length is checked with this
            extension.

    Returns:
        For each request its tokens; or a `RecordError` if the prompt or an object has no token, or a prompt is longer
        than the model's context.
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
        check_known(lm, [token for ids in (*prompts, truth, target) for token in ids])
        return FactTexts(prompts=prompts, truth=truth, target=target)

    return [result_or_error(partial(texts_of, request)) for request in requests]


def _object(lm: LanguageModel, request: EditRequest, field: str, *, leading_space: bool) -> tuple[int, ...]:
    word = answer_text(getattr(request, field))
    if leading_space and word:
        (encoding,) = encode(lm.tokenizer, [with_answer(request.text, word)])
        return encoding.ids[target_start(encoding, len(request.text)) :]
    ids = tuple(bare_ids(lm.tokenizer, word)) if word else ()
    if not ids:
        raise RecordError(f"{field} is empty", field=field)
    return ids


def attributed_texts(lm: LanguageModel, facts: Sequence[FactTexts], *, extend_prompt: bool) -> list[list[list[Text]]]:
    """The texts to attribute, as [requests][prompts][texts]; the scores of the texts of a prompt are averaged.

    Each prompt gives one text, in which all tokens of the true object are scored. With `extend_prompt` it gives one
    text for each of these tokens instead: for token i the prompt is extended by the i most likely tokens of the model.
    """
    if not extend_prompt:
        return [[[Text(ids=prompt, targets=fact.truth)] for prompt in fact.prompts] for fact in facts]
    prompts = [(prompt, len(fact.truth) - 1) for fact in facts for prompt in fact.prompts]
    greedy = iter(continue_greedily(lm, prompts))
    return [
        [_one_text_per_token(prompt=prompt, extended=next(greedy), truth=fact.truth) for prompt in fact.prompts]
        for fact in facts
    ]


def _one_text_per_token(*, prompt: tuple[int, ...], extended: tuple[int, ...], truth: tuple[int, ...]) -> list[Text]:
    return [Text(ids=extended[: len(prompt) + i], targets=(token,)) for i, token in enumerate(truth)]
