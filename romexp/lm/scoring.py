"""How likely a model finds given targets: length-normalized NLL and next-token predictions
(docs/method.md §5.2, §5.6).

A prompt runs once, however many targets it has: they follow it in one row as alternatives that do not attend to each
other. The blocks below the lowest edited layer run once for all edits of a prompt (docs/method.md §9.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from romexp.errors import RecordError, with_errors_in_place
from romexp.lm.apply_delta import overlay
from romexp.lm.batching import batched, pass_tokens
from romexp.lm.forward import BlockInputs, Row, layer_of, logits, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query, pack_queries
from romexp.lm.tokens import encode
from romexp.lm.weight_delta import WeightDelta

LOGIT_CHUNK = 1024
"""Logits are computed for at most this many positions at a time: 1,024 × 50,257 float32 numbers are 206 MB."""


@dataclass(frozen=True, kw_only=True)
class TargetScore:
    """The score of one target after one prompt.

    Attributes:
        nll: the mean of `token_nlls` (docs/method.md §5.2).
        token_ids: the target's tokens.
        token_nlls: -log p of each token of the target, given all tokens before it, in nats.
        predictions: for each token of the target, the most likely token at its place.
    """

    nll: float
    token_ids: tuple[int, ...]
    token_nlls: tuple[float, ...]
    predictions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """Which logits of a row to read for one target: those at column `columns[i]` predict `token_ids[i]`."""

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
    """Score the targets of every query (docs/method.md §5.2).

    Pass the queries to the unedited model and to all edited models in one call: they then share the computation that
    the edits do not affect.

    Args:
        deltas: for each query the edit of the model that scores it, or None for the unedited model. `deltas=None` takes
            the unedited model for all queries.
        max_batch_tokens: tokens of a batch, padding included; None takes `batch_tokens`.

    Returns:
        For each query the scores of its targets, in order; or a `RecordError` if its prompt or a target is empty, or a
        text is longer than the model's context.
    """
    packed = pack_queries(lm, queries)
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
    scores = _score_readings(lm, rows, readings, edits, max_batch_tokens)
    return with_errors_in_place(packed, [tuple(scores[i] for i in span) for span in spans])


def text_nlls(
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    deltas: Sequence[WeightDelta | None] | None = None,
    max_tokens: int | None = None,
    max_batch_tokens: int | None = None,
) -> list[tuple[float, ...]]:
    """-log p in nats of tokens 2 … T of each text, given the tokens before. The first token is not scored.

    Args:
        deltas: as for `score`, one per text.
        max_tokens: cut each text to this many tokens; None takes the model's context.
        max_batch_tokens: as for `score`.
    """
    ids = [encoding.ids[: max_tokens or lm.max_positions] for encoding in encode(lm.tokenizer, texts)]
    rows = [Row.text(row) for row in ids]
    readings = [_Reading(row=i, columns=tuple(range(len(row) - 1)), token_ids=row[1:]) for i, row in enumerate(ids)]
    scores = _score_readings(lm, rows, readings, [None] * len(texts) if deltas is None else deltas, max_batch_tokens)
    return [s.token_nlls for s in scores]


def batch_tokens(lm: LanguageModel) -> int:
    """Default number of tokens in a batch. On a CPU 1,024 are twice as fast as 8,192, because they fit its caches."""
    return 1024 if lm.device.type == "cpu" else 16384


@torch.no_grad()
def _score_readings(
    lm: LanguageModel,
    rows: Sequence[Row],
    readings: Sequence[_Reading],
    deltas: Sequence[WeightDelta | None],
    max_batch_tokens: int | None,
) -> list[TargetScore]:
    """The scores of all readings, in order."""
    by_row: list[list[int]] = [[] for _ in rows]
    for index, reading in enumerate(readings):
        by_row[reading.row].append(index)

    def work(batch: Sequence[int]) -> list[list[TargetScore]]:
        hidden = _final_states(lm, [rows[i] for i in batch], [deltas[i] for i in batch])
        wanted = [(place, readings[index]) for place, i in enumerate(batch) for index in by_row[i]]
        scores = iter(_target_scores(lm, hidden, wanted))
        return [[next(scores) for _ in by_row[i]] for i in batch]

    # Equal texts are put into the same batch, so that they share the blocks below the edits.
    order = sorted(range(len(rows)), key=lambda i: rows[i].ids)
    budget = max_batch_tokens or batch_tokens(lm)
    lengths = [len(rows[i]) for i in order]
    found = batched(work, order, lengths, max_tokens=budget, per_pass=pass_tokens(lm.device))
    scores = {
        index: score for i, row_scores in zip(order, found, strict=True) for index, score in zip(by_row[i], row_scores)
    }
    return [scores[index] for index in range(len(readings))]


def _final_states(lm: LanguageModel, rows: Sequence[Row], deltas: Sequence[WeightDelta | None]) -> torch.Tensor:
    """Final states after the final norm (rows × tokens × hidden size), each row from its own edited model."""
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
    """-log p and the most likely token at the columns of each reading.

    The logits of a position that several readings share are computed once.

    Args:
        hidden: states after the final norm (rows × tokens × hidden size).
        wanted: pairs (row of `hidden`, reading).
    """
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
