"""Prompts with their targets as rows of tokens: the targets of one prompt follow it in one row, as alternatives that do
not attend to each other (docs/method.md §9.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from romexp.errors import RecordError, result_or_error
from romexp.facts import answer_text, with_answer
from romexp.lm.forward import Row, check_known, check_length
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import Encoding, encode


@dataclass(frozen=True, kw_only=True)
class Query:
    """A prompt and the targets to score after it.

    Attributes:
        prompt: complete text without a trailing space.
        targets: answers; `score` puts one space before each, and leaves out white space around it.
    """

    prompt: str
    targets: tuple[str, ...]


def target_start(encoding: Encoding, prompt_length: int) -> int:
    """Index of the target's first token: the first token that ends after the prompt's last character.

    Raises:
        RecordError: the prompt has no token of its own, or the target has none.
    """
    start = encoding.first_token_after(prompt_length)
    if not 0 < start < len(encoding):
        which = "target" if start else "prompt"
        raise RecordError(f"the {which} has no token of its own", field=which)
    return start


Packed = list[tuple[Row, list[tuple[tuple[int, ...], tuple[int, ...]]]]]
"""The rows of one query; for each row, the (columns, token ids) of the targets to read."""


def pack_queries(lm: LanguageModel, queries: Sequence[Query]) -> list[Packed | RecordError]:
    """For each query, its rows, and for each row the (columns, token ids) of the targets to read; or its error."""
    texts = [with_answer(query.prompt, target) for query in queries for target in query.targets]
    encodings = iter(encode(lm.tokenizer, texts))
    by_query = [list(islice(encodings, len(query.targets))) for query in queries]
    return [
        result_or_error(partial(_pack_one, lm, query, encodings_of_query))
        for query, encodings_of_query in zip(queries, by_query, strict=True)
    ]


def _pack_one(lm: LanguageModel, query: Query, encodings: Sequence[Encoding]) -> Packed:
    """The rows of one query: one for all targets if the prompt has the same tokens before all of them.

    Raises:
        RecordError: the prompt or a target has no token, or a text is longer than the model's context.
    """
    if any(not answer_text(target) for target in query.targets):
        raise RecordError(f"{_shortened(query.prompt)!r}: a target is empty", field="target")
    branches: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    order: list[tuple[tuple[int, ...], int]] = []
    for encoding in encodings:
        prompt, target = _split(lm, encoding, query)
        branches.setdefault(prompt, []).append(target)
        order.append((prompt, len(branches[prompt]) - 1))
    if len(branches) == 1:
        ((prompt, targets),) = branches.items()
        return [_pack_targets(prompt, targets)]
    # The tokenizer splits the end of the prompt in different ways before different targets: one row per target.
    return [_pack_targets(prompt, [branches[prompt][i]]) for prompt, i in order]


def _split(lm: LanguageModel, encoding: Encoding, query: Query) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens of the prompt and those of the target."""
    try:
        start = target_start(encoding, len(query.prompt))
        check_length(lm, len(encoding) - 1)  # The last token is not fed to the model.
        check_known(lm, encoding.ids)
    except RecordError as error:
        raise RecordError(f"{_shortened(query.prompt)!r}: {error.reason}", field=error.field) from error
    return encoding.ids[:start], encoding.ids[start:]


def _shortened(prompt: str) -> str:
    return prompt if len(prompt) <= 80 else f"{prompt[:77]}…"


def _pack_targets(
    prompt: tuple[int, ...], targets: Sequence[tuple[int, ...]]
) -> tuple[Row, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """One row with the prompt and, after it, each target without its last token; and what to read for each target.

    Each target attends to the prompt and to itself.
    """
    n = len(prompt)
    ids, positions, segments = list(prompt), list(range(n)), [0] * n
    where = []
    for k, target in enumerate(targets, start=1):
        body = target[:-1]
        columns = (n - 1, *range(len(ids), len(ids) + len(body)))
        where.append((columns, target))
        ids += body
        positions += range(n, n + len(body))
        segments += [k] * len(body)
    return Row(ids=tuple(ids), positions=tuple(positions), segments=tuple(segments)), where
