"""Cells of different layers in one pass (docs/method.md §9.3).

A pass over few tokens costs nearly as much as one over many, because every weight must be read. So cells share passes:
each joins at the block from which it differs from the base run, and all go on together to the last block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from romexp.lm.hooks import Change, patch
from romexp.lm.model import LanguageModel
from romexp.lm.suffix import Suffixes, last_states, run_suffixes
from romexp.tracing.base_runs import Kind, module_path


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One replaced token: token `token` of the prompt at position `prompt` in the batch."""

    prompt: int
    token: int


Values = Callable[[Sequence[Cell]], torch.Tensor]
"""Gives the states that replace those of some cells (cells·samples × hidden size); a cell's samples are adjacent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Replacement:
    """What is replaced in some cells.

    Attributes:
        cells: the cells.
        start: the first block that runs again.
        restored: states that replace the input of block `start` at the cells' tokens. If None, block `start` runs for
            the cells' tokens alone, and all later tokens run from the block after it.
        forced: states that replace outputs at the cells' tokens while the blocks run, by kind and layer.
    """

    cells: Sequence[Cell]
    start: int
    restored: Values | None = None
    forced: Mapping[tuple[Kind, int], Values] = field(default_factory=dict)

    @property
    def resumed(self) -> int:
        """The block from which all tokens of a cell run."""
        return self.start if self.restored else self.start + 1


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplacedCell:
    """One cell of a replacement."""

    cell: Cell
    of: Replacement


def replaced_states(
    lm: LanguageModel, cells: Sequence[ReplacedCell], rows: Suffixes, inputs: torch.Tensor, *, samples: int
) -> torch.Tensor:
    """The states of the last tokens after the final norm (cells·samples × hidden size).

    Args:
        cells: in the order in which they join, that is by `resumed`.
        rows: the cells' suffixes in the base run, with `samples` rows for each cell. If they have several tokens, all
            cells join at the last block or before.
        inputs: the input of each block in the base run, and the last block's output (layers+1 × rows of the base run ×
            tokens × hidden size).
    """
    # The last block computes only the last token of each row. So its outputs may be replaced only if that is the
    # replaced token, that is if each row has one token.
    last = lm.n_layers if rows.width == 1 else lm.n_layers - 1
    joins = sorted({each.of.resumed for each in cells})
    hidden = inputs.new_empty((0, rows.width, inputs.shape[-1]))
    running = 0
    for start, stop in zip(joins, [*joins[1:], last], strict=True):
        first = running
        running = sum(each.of.resumed <= start for each in cells)
        new = _part(rows, first * samples, running * samples)
        hidden = torch.cat([hidden, _joining(lm, cells[first:running], new, inputs, samples=samples)])
        with patch(lm, _forced(lm, cells[:running], range(start, stop), samples=samples)):
            hidden = run_suffixes(lm, _part(rows, 0, running * samples), start=start, stop=stop, hidden=hidden)
    return last_states(lm, rows, start=last, hidden=hidden)


def _joining(
    lm: LanguageModel, cells: Sequence[ReplacedCell], rows: Suffixes, inputs: torch.Tensor, *, samples: int
) -> torch.Tensor:
    """The states with which cells join a pass (cells·samples × width × hidden size): those of the base run, but for
    the replaced token.
    """
    block = cells[0].of.resumed
    hidden = rows.states(inputs[block])
    for place, each in _by_replacement(cells, where=lambda of: of.restored is not None):
        assert each.restored is not None
        hidden[_rows_of(place, samples), 0] = each.restored([cells[i].cell for i in place]).to(hidden)
    alone = [i for i, each in enumerate(cells) if each.of.restored is None]
    if alone:  # Their block before runs again, for the replaced token.
        index = torch.tensor(_rows_of(alone, samples), device=hidden.device)
        token = rows.first_only().select(index)
        changes = _forced(lm, [cells[i] for i in alone], range(block - 1, block), samples=samples)
        with patch(lm, changes):
            before = token.states(inputs[block - 1])
            hidden[index, 0] = run_suffixes(lm, token, start=block - 1, stop=block, hidden=before)[:, 0]
    return hidden


def _part(rows: Suffixes, first: int, end: int) -> Suffixes:
    return rows.select(torch.arange(first, end, device=rows.source.device))


def _forced(lm: LanguageModel, cells: Sequence[ReplacedCell], layers: range, *, samples: int) -> dict[str, Change]:
    """Changes of outputs in these layers, by module path: each replaces those of the cells that are forced there."""
    by_module: dict[tuple[Kind, int], list[tuple[list[int], torch.Tensor]]] = {}
    for place, replacement in _by_replacement(cells, where=lambda of: bool(of.forced)):
        mine = [cells[i].cell for i in place]
        for (kind, layer), values in replacement.forced.items():
            if layer in layers:
                by_module.setdefault((kind, layer), []).append((_rows_of(place, samples), values(mine)))
    return {
        module_path(lm, kind, layer): _overwrite_first_column(
            [row for rows, _ in parts for row in rows], torch.cat([values for _, values in parts])
        )
        for (kind, layer), parts in by_module.items()
    }


def _by_replacement(
    cells: Sequence[ReplacedCell], *, where: Callable[[Replacement], bool]
) -> list[tuple[list[int], Replacement]]:
    """The places of the cells of each replacement for which `where` is true."""
    places: dict[Replacement, list[int]] = {}
    for i, each in enumerate(cells):
        if where(each.of):
            places.setdefault(each.of, []).append(i)
    return [(place, replacement) for replacement, place in places.items()]


def _rows_of(places: Sequence[int], samples: int) -> list[int]:
    return [place * samples + sample for place in places for sample in range(samples)]


def _overwrite_first_column(rows: Sequence[int], values: torch.Tensor) -> Change:
    """A change that replaces column 0, which holds the replaced token of each suffix, in these rows."""

    def change(output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[list(rows), 0] = values.to(output)
        return changed

    return change
