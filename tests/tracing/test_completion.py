"""An attribute of several tokens is followed greedily, and compared as a text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from romexp.analysis.traces import trace_summary
from romexp.facts import KnownFact
from romexp.lm.greedy import continue_greedily
from romexp.lm.model import LanguageModel
from romexp.reporting.tables.traces import trace_table
from romexp.tracing.completion import completions
from romexp.tracing.noise import Gaussian
from romexp.tracing.prompt import TracedPrompt, prepare_prompts
from romexp.tracing.rows import to_row
from romexp.tracing.tracer import Tracer

WORDS = ("the", "of", "in", "is", "was", "said", "company", "phone", "bank", "Steve", "Jobs", "founder", "mother")


def _said(lm: LanguageModel, count: int) -> Iterator[tuple[TracedPrompt, tuple[int, ...], str]]:
    """Prompts, what the model says after them, and its text, where that is made of letters."""
    texts = [f"Anna {word} {other}" for word in WORDS for other in WORDS]
    prompts: list[TracedPrompt] = prepare_prompts(lm, texts, ["Anna"] * len(texts))  # type: ignore[assignment]
    for prompt, text in zip(prompts, continue_greedily(lm, [(p.ids, count) for p in prompts]), strict=True):
        tokens = text[len(prompt.ids) :]
        said = lm.tokenizer.decode(list(tokens)).strip(" ")
        if said.isascii() and said.isalpha() and len(set(tokens)) == count:
            yield prompt, tokens, said


@pytest.fixture(scope="module")
def several(tiny_gpt2: LanguageModel) -> tuple[TracedPrompt, tuple[int, ...], str]:
    """A prompt after which the model says a word of two tokens."""
    return next(_said(tiny_gpt2, 2))


def test_an_attribute_of_several_tokens_is_followed(
    tiny_gpt2: LanguageModel, several: tuple[TracedPrompt, tuple[int, ...], str]
) -> None:
    prompt, tokens, said = several
    assert prompt.answer == tokens[0]
    assert prompt.answer_text(tiny_gpt2).strip() != said  # the comparison of one token fails
    assert completions(tiny_gpt2, [prompt], [said]) == [tokens]
    assert completions(tiny_gpt2, [prompt], [f" {said} "]) == [tokens]


def test_another_end_is_another_answer(
    tiny_gpt2: LanguageModel, several: tuple[TracedPrompt, tuple[int, ...], str]
) -> None:
    """The first token alone is right; so a comparison of first tokens would take the fact."""
    prompt, _, said = several
    other = said[:-1] + ("x" if said[-1] != "x" else "y")
    assert completions(tiny_gpt2, [prompt, prompt], [other, said + "zz"]) == [None, None]


def test_one_token_is_compared_as_before(tiny_gpt2: LanguageModel) -> None:
    prompt, tokens, said = next(_said(tiny_gpt2, 1))
    assert completions(tiny_gpt2, [prompt, prompt, prompt], [said, "Oslo", ""]) == [tokens, None, tokens]


def test_batches_change_nothing(tiny_gpt2: LanguageModel) -> None:
    found = [entry for count in (1, 2, 3) for _, entry in zip(range(3), _said(tiny_gpt2, count))]
    prompts, tokens, said = zip(*found, strict=True)
    together = completions(tiny_gpt2, prompts, said)
    assert together == list(tokens)
    assert together == [completions(tiny_gpt2, [p], [s])[0] for p, s in zip(prompts, said, strict=True)]


def test_rows_summary_and_table_say_so(
    tiny_gpt2: LanguageModel, several: tuple[TracedPrompt, tuple[int, ...], str]
) -> None:
    prompt, tokens, said = several
    (trace,) = Tracer(samples=2)(tiny_gpt2, [prompt], noise=Gaussian(scale=0.1))
    fact = KnownFact(known_id=0, subject=prompt.subject, attribute=said, prompt=prompt.prompt)
    rows = [
        to_row(tiny_gpt2, fact, prompt, trace, None, completion=tokens),
        to_row(tiny_gpt2, fact, prompt, trace, None, completion=tokens[:1]),
        to_row(tiny_gpt2, fact, prompt, None, None),
    ]
    assert rows[0]["completion"].strip() == said
    assert [row.get("completion_tokens") for row in rows] == [2, 1, None]
    assert rows[0]["answer"] == prompt.answer_text(tiny_gpt2)  # what the scores are of
    summary = trace_summary(rows)
    assert (summary["n"], summary["n_incorrect"], summary["n_several_tokens"]) == (2, 1, 1)
    assert "1 with an answer of several tokens" in str(trace_table(summary, rows, title="t").caption)
    assert f"the first of 2 tokens of {said}" in str(trace_table(summary, rows[:1], title="t").caption)
    assert "several" not in str(trace_table(trace_summary(rows[1:]), rows[1:], title="t").caption)
