"""The texts of an edit: whole strings tokenized once, with the positions that docs/method.md §3.4 and §3.6 name."""

from __future__ import annotations

from dataclasses import replace

import naive
import pytest
from edit_cases import REQUESTS, TEMPLATES

from romexp.editors.values.texts import edit_texts
from romexp.errors import RecordError
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import FactToken

FACT_TOKENS: tuple[FactToken, ...] = ("subject_first", "subject_last", "subject_first_after_last", "last")


@pytest.fixture(params=["tiny_gpt2", "tiny_llama_bos"])
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("fact_token", FACT_TOKENS)
def test_tokens_and_positions(lm: LanguageModel, fact_token: FactToken) -> None:
    """Against prefix, subject, suffix and target tokenized one by one."""
    for index, (request, texts) in enumerate(
        zip(REQUESTS, edit_texts(lm, REQUESTS, TEMPLATES, fact_token=fact_token), strict=True)
    ):
        target = naive.tokens(lm, f" {request.target_new}", special=False)
        assert [text.template for text in texts] == [0, 1, 2, None]
        for text, template in zip(texts[:-1], TEMPLATES, strict=True):
            prompt = template.replace("{}", request.prompt)
            head = naive.tokens(lm, prompt.replace("{}", request.subject))
            assert text.row.ids == (*head, *target[:-1])
            assert text.row.positions == tuple(range(len(text.row)))
            assert text.targets == tuple(target)
            assert text.first_read == len(head) - 1
            assert text.lookup == naive.lookup(lm, prompt, request.subject, fact_token)
            assert text.request == index
        *_, held = texts
        assert held.lookup == held.first_read == naive.lookup(lm, "{} is a", request.subject, fact_token)
        assert held.row.ids == tuple(naive.tokens(lm, f"{request.subject} is a")[: held.lookup + 1])
        assert held.targets == ()


def test_fact_tokens_are_the_words_they_name(lm: LanguageModel) -> None:
    """Spelled out once, so that two faults of one kind do not cancel."""
    words = {}
    for fact_token in FACT_TOKENS:
        ((text, *_),) = edit_texts(lm, REQUESTS[:1], TEMPLATES, fact_token=fact_token)
        words[fact_token] = lm.tokenizer.decode(text.row.ids[: text.lookup + 1]).removeprefix("<s>")
    assert words == {
        "subject_first": lm.tokenizer.decode(naive.tokens(lm, "Steve Jobs", special=False)[:1]),
        "subject_last": "Steve Jobs",
        "subject_first_after_last": "Steve Jobs was",
        "last": "Steve Jobs was the founder of",
    }
    assert REQUESTS[0].target_new == "Microsoft Office"


def test_a_subject_at_the_very_end_has_nothing_after_it(tiny_gpt2: LanguageModel) -> None:
    request = replace(REQUESTS[0], prompt="The phone was bought by {}")
    lookups = [
        edit_texts(tiny_gpt2, [request], ["{}"], fact_token=fact_token)[0][0].lookup for fact_token in FACT_TOKENS[1:]
    ]
    assert len(set(lookups)) == 1


def test_spaces_around_a_target_do_not_count(tiny_gpt2: LanguageModel) -> None:
    padded = replace(REQUESTS[0], target_new=" Microsoft Office ")
    one, other = edit_texts(tiny_gpt2, [REQUESTS[0], padded], TEMPLATES, fact_token="subject_last")
    assert [text.row for text in one] == [text.row for text in other]
    assert [text.targets for text in one] == [text.targets for text in other]


def test_an_error_stands_in_the_bad_requests_place(lm: LanguageModel) -> None:
    """The texts of the others are those that they have without it, but for the position that they remember."""
    bad = replace(REQUESTS[0], target_new="")
    first, error, second = edit_texts(lm, [REQUESTS[0], bad, REQUESTS[1]], TEMPLATES, fact_token="subject_last")
    assert isinstance(error, RecordError)
    assert error.field == "target_new"
    without = edit_texts(lm, REQUESTS[:2], TEMPLATES, fact_token="subject_last")
    assert [first, [replace(text, request=1) for text in second]] == without
