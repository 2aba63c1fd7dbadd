"""Where a traced prompt's subject stands among its tokens."""

from __future__ import annotations

import pytest
from odd_tokenizers import ending, with_tokenizer

from romexp.lm.model import LanguageModel
from romexp.tracing.prompt import TracedPrompt, prepare_prompts


def shown(lm: LanguageModel, prompt: str, subject: str, template: str = "") -> str:
    """The text up to the end of the subject that was found, its tokens in brackets."""
    (found,) = prepare_prompts(lm, [prompt], [subject], templates=[template])
    assert isinstance(found, TracedPrompt)
    begin, end = found.subject_range
    tokens = found.tokens(lm)
    return "".join(tokens[:begin]) + "[" + "".join(tokens[begin:end]) + "]"


@pytest.mark.parametrize(
    ("prompt", "subject", "template", "expected"),
    [
        ("The Parisian statue in Paris was", "Paris", "", "The Parisian statue in[ Paris]"),
        ("Bobby met Bob in", "Bob", "", "Bobby met[ Bob]"),
        ("Anna and Anna were", "Anna", "", "[Anna]"),
        ("Anna and Anna were", "Anna", "Anna and {} were", "Anna and [Anna]"),
        ("Anna and Anna were born in", "Anna", "Anna and {} were", "Anna and [Anna]"),
        ("Anna and Anna were", "Anna", "Somebody and {} were", "[Anna]"),
        ("The Parisian in Paris", " Paris ", "", "The Parisian in[ Paris]"),
    ],
)
def test_the_subject_that_is_traced(
    tiny_gpt2: LanguageModel, prompt: str, subject: str, template: str, expected: str
) -> None:
    assert shown(tiny_gpt2, prompt, subject, template) == expected


def test_the_answer_is_read_after_the_last_word(tiny_gpt2: LanguageModel) -> None:
    """Not after an end-of-text token that the tokenizer appends."""
    odd = with_tokenizer(tiny_gpt2, ending("end"))
    (found,) = prepare_prompts(odd, ["Anna was"], ["Anna"])
    assert isinstance(found, TracedPrompt)
    assert found.tokens(odd)[-1] == " was"
