"""Whether a model completes a prompt with its attribute, which may have several tokens (docs/method.md §2.2)."""

from __future__ import annotations

from collections.abc import Sequence

from romexp.errors import RecordError
from romexp.facts import answer_text, with_answer
from romexp.lm.forward import context_length
from romexp.lm.greedy import continue_greedily
from romexp.lm.model import LanguageModel
from romexp.lm.packing import target_start
from romexp.lm.tokens import encode
from romexp.tracing.prompt import TracedPrompt

Tokens = tuple[int, ...]


def completions(lm: LanguageModel, prompts: Sequence[TracedPrompt], attributes: Sequence[str]) -> list[Tokens | None]:
    """The tokens with which the model completes each prompt, if they spell its attribute.

    The model continues greedily, for at most as many tokens as the attribute has after this prompt. The first tokens of
    this continuation must spell the attribute, apart from white space around it. For an attribute of one token this is
    the authors' comparison.

    Returns:
        For each prompt these tokens, of which the first is its `answer`; or None if the model says something else. A
        prompt whose attribute is empty is completed by any answer.
    """
    wanted = [answer_text(attribute) for attribute in attributes]
    counts = [
        _count(lm, prompt, attribute) if _may_become(prompt.answer_text(lm), attribute) else 1
        for prompt, attribute in zip(prompts, wanted, strict=True)
    ]
    asked = [((*prompt.ids, prompt.answer), count - 1) for prompt, count in zip(prompts, counts, strict=True)]
    return [
        _spelling(lm, text[len(prompt.ids) :], attribute)
        for prompt, attribute, text in zip(prompts, wanted, continue_greedily(lm, asked), strict=True)
    ]


def _may_become(first: str, attribute: str) -> bool:
    """Whether an attribute can begin with this token's text, in which a part of a character is a replacement character.

    A line break is no beginning: the trace would be that of the line break.
    """
    return attribute.startswith(first.lstrip(" ").rstrip("\ufffd"))


def _count(lm: LanguageModel, prompt: TracedPrompt, attribute: str) -> int:
    """The number of tokens that the attribute has after the prompt, as far as they fit the model's context."""
    (encoding,) = encode(lm.tokenizer, [with_answer(prompt.prompt, attribute)])
    try:
        count = len(encoding) - target_start(encoding, len(prompt.prompt))
    except RecordError:
        return 1
    return max(1, min(count, context_length(lm) - len(prompt.ids)))


def _spelling(lm: LanguageModel, tokens: Tokens, attribute: str) -> Tokens | None:
    """The first tokens whose text is the attribute; None if there are none."""
    if not attribute:
        return tokens[:1]
    for count in range(1, len(tokens) + 1):
        text = str(lm.tokenizer.decode(list(tokens[:count]), clean_up_tokenization_spaces=False))
        if text.strip() == attribute:
            return tokens[:count]
    return None
