"""How likely a model finds inputs targets: length-normalized NLL and next-token predictions
(docs/method.md §5.2, §5.6).

A prompt is run once, whatever the number of targets (they are packed behind it as alternatives), and the blocks below
the lowest edited layer are run once for all edits of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch

from romexp.errors import RecordError, result_or_error, with_errors_in_place
from romexp.lm.apply_delta import overlay
from romexp.lm.batching import batched
from romexp.lm.forward import BlockInputs, Row, check_length, layer_of, logits, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import Encoding, encode
from romexp.lm.weight_delta import WeightDelta

LOGIT_CHUNK = 1024
"""Positions whose logits are held at once: 1,024 × 50,257 float32 is 206 MB."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """Score `targets` after `prompt`.

    Attributes:
        prompt: complete text without a trailing space.
        targets: without a leading space; one is put before each.
    """

    prompt: str
    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TargetScore:
    """One target after one prompt.

    Attributes:
        nll: mean over the target's tokens of -log p, in nats.
        token_nlls: -log p of each token given all before it.
        predictions: the arg-max token id where each of them is predicted.
    """

    nll: float
    token_ids: tuple[int, ...]
    token_nlls: tuple[float, ...]
    predictions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """Where a row's logits are read: column `columns[i]` predicts `token_ids[i]`."""

    row: int
    columns: tuple[int, ...]
    token_ids: tuple[int, ...]


def score(
    lm: LanguageModel,
    queries: Sequence[Query],
    *,
    deltas: Sequence[WeightDelta | None] | None = None,
    max_batch_tokens: int | None = None,
) -> list[tuple[TargetScore, ...] | RecordError]:
    """Score every query: one entry a target.

    Give the queries of the unedited and the edited models together: they share what the edit does not touch.

    Args:
        deltas: the edit that each query runs through, None for the unedited model; None: no query has one.
        max_batch_tokens: size of a batch, padding included; None takes what suits the device (`batch_tokens`).

    Returns:
        In the place of a query with an empty prompt or target, or one longer than the model's context, its error.
    """
    packed = _pack(lm, queries)
    rows: list[Row] = []
    readings: list[_Reading] = []
    edits: list[WeightDelta | None] = []
    spans: list[range] = []
    for delta, query_rows in zip([None] * len(queries) if deltas is None else deltas, packed, strict=True):
        if isinstance(query_rows, RecordError):
            continue
        first = len(readings)
        for row, where in query_rows:
            readings += [_Reading(row=len(rows), columns=columns, token_ids=ids) for columns, ids in where]
            rows.append(row)
            edits.append(delta)
        spans.append(range(first, len(readings)))
    scores = _read(lm, rows, readings, edits, max_batch_tokens)
    return with_errors_in_place(packed, [tuple(scores[i] for i in span) for span in spans])


def text_nlls(
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    deltas: Sequence[WeightDelta | None] | None = None,
    max_tokens: int | None = None,
    max_batch_tokens: int | None = None,
) -> list[tuple[float, ...]]:
    """-log p of tokens 2…T of each text, truncated to `max_tokens` tokens; the first has nothing before it.

    Args:
        deltas: as for `score`, one a text.
    """
    ids = [encoding.ids[: max_tokens or lm.max_positions] for encoding in encode(lm.tokenizer, texts)]
    rows = [Row.text(row) for row in ids]
    readings = [_Reading(row=i, columns=tuple(range(len(row) - 1)), token_ids=row[1:]) for i, row in enumerate(ids)]
    scores = _read(lm, rows, readings, [None] * len(texts) if deltas is None else deltas, max_batch_tokens)
    return [s.token_nlls for s in scores]


def batch_tokens(lm: LanguageModel) -> int:
    """Tokens of a batch: on a CPU few enough to stay in its caches (twice as fast as 8,192), else many."""
    return 1024 if lm.device.type == "cpu" else 16384


def target_start(encoding: Encoding, prompt_length: int) -> int:
    """Index of the first token that reaches beyond the prompt's last character.

    Raises:
        RecordError: nothing stands before it from which it could be predicted, or there is no such token.
    """
    start = encoding.first_token_after(prompt_length)
    if not 0 < start < len(encoding):
        which = "target" if start else "prompt"
        raise RecordError(f"the {which} has no token of its own", field=which)
    return start


_Packed = list[tuple[Row, list[tuple[tuple[int, ...], tuple[int, ...]]]]]


def _pack(lm: LanguageModel, queries: Sequence[Query]) -> list[_Packed | RecordError]:
    """Rows of each query with the columns to read."""
    texts = [f"{query.prompt} {target}" for query in queries for target in query.targets]
    encodings = iter(encode(lm.tokenizer, texts))
    own = [list(islice(encodings, len(query.targets))) for query in queries]
    return [
        result_or_error(partial(_pack_one, lm, query, of_query)) for query, of_query in zip(queries, own, strict=True)
    ]


def _pack_one(lm: LanguageModel, query: Query, encodings: Sequence[Encoding]) -> _Packed:
    """Targets whose prompt tokens agree share a row.

    Raises:
        RecordError: a prompt or target has no token, or is too long for the model.
    """
    if any(not target.strip() for target in query.targets):
        raise RecordError(f"{_short(query.prompt)!r}: a target is empty", field="target")
    branches: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    order: list[tuple[tuple[int, ...], int]] = []
    for encoding in encodings:
        prompt, target = _split(lm, encoding, query)
        branches.setdefault(prompt, []).append(target)
        order.append((prompt, len(branches[prompt]) - 1))
    if len(branches) == 1:
        ((prompt, targets),) = branches.items()
        return [_branched(prompt, targets)]
    # The tokenizer merged the prompt's end differently: one row a target, in order.
    return [_branched(prompt, [branches[prompt][i]]) for prompt, i in order]


def _split(lm: LanguageModel, encoding: Encoding, query: Query) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens of the prompt and of the target."""
    try:
        start = target_start(encoding, len(query.prompt))
        check_length(lm, len(encoding) - 1)  # the last token is only predicted
    except RecordError as error:
        raise RecordError(f"{_short(query.prompt)!r}: {error.reason}", field=error.field) from error
    return encoding.ids[:start], encoding.ids[start:]


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= 80 else f"{prompt[:77]}…"


def _branched(
    prompt: tuple[int, ...], targets: Sequence[tuple[int, ...]]
) -> tuple[Row, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """The prompt followed by each target without its last token, each target seeing the prompt and itself."""
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


@torch.no_grad()
def _read(
    lm: LanguageModel,
    rows: Sequence[Row],
    readings: Sequence[_Reading],
    deltas: Sequence[WeightDelta | None],
    max_batch_tokens: int | None,
) -> list[TargetScore]:
    """The score of every reading."""
    by_row: list[list[int]] = [[] for _ in rows]
    for index, reading in enumerate(readings):
        by_row[reading.row].append(index)

    def work(batch: Sequence[int]) -> list[list[TargetScore]]:
        hidden = _final_states(lm, [rows[i] for i in batch], [deltas[i] for i in batch])
        wanted = [(place, readings[index]) for place, i in enumerate(batch) for index in by_row[i]]
        scores = iter(_target_scores(lm, hidden, wanted))
        return [[next(scores) for _ in by_row[i]] for i in batch]

    # Rows of one text stay together so that they share the blocks below the edit.
    order = sorted(range(len(rows)), key=lambda i: rows[i].ids)
    budget = max_batch_tokens or batch_tokens(lm)
    found = batched(work, order, [len(rows[i]) for i in order], max_tokens=budget)
    scores = {index: score for i, own in zip(order, found, strict=True) for index, score in zip(by_row[i], own)}
    return [scores[index] for index in range(len(readings))]


def _final_states(lm: LanguageModel, rows: Sequence[Row], deltas: Sequence[WeightDelta | None]) -> torch.Tensor:
    """Normed final states (rows × seq × hidden size), each row through its own edited model."""
    layers = [layer_of(lm, name) for delta in set(deltas) if delta is not None for name in delta.terms]
    if not layers:
        return run_blocks(lm, make_inputs(lm, rows))
    unique: dict[Row, int] = {}
    places = [unique.setdefault(row, len(unique)) for row in rows]
    inputs = make_inputs(lm, list(unique))
    index = torch.tensor(places, device=inputs.ids.device)
    start = min(layers)
    below = run_blocks(lm, inputs, stop=start)[index] if start > 0 else None
    expanded: BlockInputs = inputs.select(index)
    with overlay(lm, deltas):
        return run_blocks(lm, expanded, start=start, hidden=below)


def _target_scores(
    lm: LanguageModel, hidden: torch.Tensor, wanted: Sequence[tuple[int, _Reading]]
) -> Iterator[TargetScore]:
    nlls, predictions = _token_scores(lm, hidden, wanted)
    for (_, reading), nll, prediction in zip(wanted, nlls, predictions, strict=True):
        mean = sum(nll) / len(nll) if nll else 0.0
        yield TargetScore(nll=mean, token_ids=reading.token_ids, token_nlls=nll, predictions=prediction)


def _token_scores(
    lm: LanguageModel, hidden: torch.Tensor, wanted: Sequence[tuple[int, _Reading]]
) -> tuple[list[tuple[float, ...]], list[tuple[int, ...]]]:
    """-log p and arg-max at each reading's columns; a position read for several targets is computed once."""
    positions: dict[tuple[int, int], int] = {}
    reads = [
        (positions.setdefault((place, column), len(positions)), token)
        for place, reading in wanted
        for column, token in zip(reading.columns, reading.token_ids, strict=True)
    ]
    where = torch.tensor(list(positions), device=hidden.device, dtype=torch.long).reshape(-1, 2)
    states = hidden[where[:, 0], where[:, 1]]
    source = torch.tensor([i for i, _ in reads], device=hidden.device, dtype=torch.long)
    token = torch.tensor([t for _, t in reads], device=hidden.device, dtype=torch.long)
    nll = torch.zeros(len(reads), device=hidden.device)
    best = torch.zeros(len(positions), dtype=torch.long, device=hidden.device)
    for first in range(0, len(positions), LOGIT_CHUNK):
        log_probs = logits(lm, states[first : first + LOGIT_CHUNK]).log_softmax(dim=-1)
        best[first : first + LOGIT_CHUNK] = log_probs.argmax(dim=-1)
        mine = (source >= first) & (source < first + LOGIT_CHUNK)
        nll[mine] = -log_probs[source[mine] - first, token[mine]]
    nll_list, best_list = nll.tolist(), best[source].tolist()
    nlls, predictions, at = [], [], 0
    for _, reading in wanted:
        end = at + len(reading.columns)
        nlls.append(tuple(nll_list[at:end]))
        predictions.append(tuple(best_list[at:end]))
        at = end
    return nlls, predictions
