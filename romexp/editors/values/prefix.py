"""Keys and values of the tokens before the edited one, which a step of the optimization does not change
(docs/method.md §9.3). Tokens with which all texts of a template begin, such as its context, run once for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch.nn.utils.rnn import pad_sequence

from romexp.editors.values.texts import EditText
from romexp.lm.batching import by_length, training_tokens
from romexp.lm.forward import KeysAndValues, Row, make_inputs, run_blocks, suffix_inputs
from romexp.lm.model import LanguageModel

Prefix = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Keys and values by layer (rows × heads × tokens × head size)."""


def shared_start(rows: Sequence[Row]) -> int:
    """The number of tokens with which all rows begin."""
    columns = zip(*(row.ids for row in rows), strict=False)
    return sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, columns))


@torch.no_grad()
def keys_and_values_before(lm: LanguageModel, texts: Sequence[EditText], hidden: torch.Tensor, *, start: int) -> Prefix:
    """Keys and values of the tokens before each text's lookup token, by layer from `start` on.

    Column c holds token c. A text's columns from its lookup token on have no meaning.

    Args:
        hidden: what block `start` gets (texts × tokens × hidden size).
    """
    rows = [text.row.part(0, text.lookup) for text in texts]
    if not any(map(len, rows)) or start >= lm.n_layers:
        return {}
    first, source, shared = _templates(texts, rows)
    recorder = KeysAndValues(record=True)
    inputs = make_inputs(lm, [rows[i].part(0, end) for i, end in zip(first, shared, strict=True)])
    run_blocks(lm, inputs, start=start, hidden=hidden[first, : inputs.ids.shape[1]], cache=recorder)
    of_text = torch.tensor(source, device=hidden.device)
    width = max(map(len, rows))
    found = {
        layer: (resized(keys, width, dim=2)[of_text], resized(values, width, dim=2)[of_text])
        for layer, (keys, values) in recorder.stored.items()
    }

    starts = [shared[template] for template in source]
    longer = [i for i, row in enumerate(rows) if len(row) > starts[i]]
    for group in by_length([len(rows[i]) - starts[i] for i in longer], max_tokens=training_tokens(lm.device)):
        own = [longer[k] for k in group]
        after = KeysAndValues(prefix=recorder.stored, source=of_text[own], record=True)
        begins, before = [starts[i] for i in own], after.get_seq_length()
        inputs = suffix_inputs(lm, [rows[i] for i in own], begins, prefix_width=before)
        states = pad_sequence([hidden[i, starts[i] : len(rows[i])] for i in own], batch_first=True)
        run_blocks(lm, inputs, start=start, hidden=states, cache=after)
        _write(found, after.stored, [(i, starts[i], len(rows[i])) for i in own])
    return found


def _templates(texts: Sequence[EditText], rows: Sequence[Row]) -> tuple[list[int], list[int], list[int]]:
    """The first text of each template; the number of each text's template; and how many tokens the rows of each
    template share.
    """
    groups: dict[int | None, list[int]] = {}
    for i, text in enumerate(texts):
        groups.setdefault(text.template, []).append(i)
    number = {template: k for k, template in enumerate(groups)}
    first = [group[0] for group in groups.values()]
    shared = [shared_start([rows[i] for i in group]) for group in groups.values()]
    return first, [number[text.template] for text in texts], shared


def _write(into: Prefix, found: Prefix, places: Sequence[tuple[int, int, int]]) -> None:
    """Write keys and values of some tokens in place.

    Args:
        places: for each row of `found` the row of `into`, its first column, and one past its last one.
    """
    spots = [(row, k, c, c - start) for k, (row, start, end) in enumerate(places) for c in range(start, end)]
    row, own_row, column, own_column = torch.tensor(spots, device=next(iter(into.values()))[0].device).unbind(dim=1)
    for layer, both in found.items():
        for whole, part in zip(into[layer], both, strict=True):
            whole[row, :, column] = part[own_row, :, own_column]


def resized(states: torch.Tensor, size: int, *, dim: int) -> torch.Tensor:
    """The states with tokens cut off, or with zeros added, to which no token may attend."""
    have = states.shape[dim]
    if have >= size:
        return states.narrow(dim, 0, size)
    shape = list(states.shape)
    shape[dim] = size - have
    return torch.cat([states, states.new_zeros(shape)], dim=dim)
