"""Keys and values of the tokens before the edited one, which a step of the optimization does not change
(docs/method.md §9.3). Tokens with which all texts of a template begin, such as its context, run once for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from romexp.editors.values.texts import EditText
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

    starts = [shared[template] for template in source]
    of_text = torch.tensor(source, device=hidden.device)
    own = [i for i, row in enumerate(rows) if len(row) > starts[i]]
    after = KeysAndValues(prefix=recorder.stored, source=of_text[own], record=True)
    if own:
        begins, width = [starts[i] for i in own], after.get_seq_length()
        inputs = suffix_inputs(lm, [rows[i] for i in own], begins, prefix_width=width)
        states = pad_sequence([hidden[i, starts[i] : len(rows[i])] for i in own], batch_first=True)
        run_blocks(lm, inputs, start=start, hidden=states, cache=after)
    places = [(i, k, column) for k, i in enumerate(own) for column in range(starts[i], len(rows[i]))]
    return _joined(recorder.stored, of_text, after.stored, places, starts=starts, width=max(map(len, rows)))


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


def _joined(
    shared: Prefix,
    of_text: torch.Tensor,
    rest: Prefix,
    places: Sequence[tuple[int, int, int]],
    *,
    starts: Sequence[int],
    width: int,
) -> Prefix:
    """Put the shared tokens and a text's own ones side by side, in `width` columns.

    Args:
        shared: keys and values of the shared tokens, by template.
        of_text: the template of each text.
        rest: those of the other tokens, of the texts that have some.
        places: for each of these tokens its text, the row of `rest`, and its column.
        starts: the number of shared tokens of each text.
    """
    text, row, column = torch.tensor(places, dtype=torch.long, device=of_text.device).reshape(-1, 3).unbind(dim=1)
    column_of_rest = column - torch.tensor(list(starts), device=of_text.device)[text]

    def join(layer: int, which: int) -> torch.Tensor:
        common = shared[layer][which]
        joined = pad(common, (0, 0, 0, max(0, width - common.shape[2])))[of_text, :, :width]
        if rest:
            joined[text, :, column] = rest[layer][which][row, :, column_of_rest]
        return joined

    return {layer: (join(layer, 0), join(layer, 1)) for layer in shared}
