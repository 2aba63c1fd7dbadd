"""The form of a row of `task=trace tracer.nodes=heads|neurons|lens` (docs/method.md §2.10), to check rows from disk."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Strict, model_validator

from romexp.measured import form_fault
from romexp.results.rows import Row

_Number = Annotated[float, Strict()]
_Grid = list[list[_Number]] | None


class _Pattern(BaseModel):
    layer: int
    head: int
    pattern: list[list[_Number]]


class _Neuron(BaseModel):
    layer: int
    token: int
    neuron: int
    estimate: _Number
    effect: _Number | None
    promotes: list[str]


class _NodeRow(BaseModel):
    tokens: list[str]
    subject_range: tuple[int, int]
    answer: str
    high_score: _Number
    correct_prediction: bool
    low_score: _Number | None = None
    nodes: str = ""
    heads: _Grid = None
    attention: list[list[list[_Number]]] | None = None
    patterns: list[_Pattern] | None = None
    neurons: list[_Neuron] | None = None
    lens: _Grid = None
    lens_tokens: list[list[str]] | None = None
    lens_ranks: list[list[int]] | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> _NodeRow:
        needed = {
            "heads": (self.heads, self.attention, self.patterns),
            "neurons": (self.neurons,),
            "lens": (self.lens, self.lens_tokens, self.lens_ranks),
        }
        if self.correct_prediction and (self.low_score is None or None in needed.get(self.nodes, (None,))):
            raise ValueError(f"nodes: what {self.nodes or 'nothing'!r} gives is missing")
        if self.lens and len(self.lens) != len(self.tokens):
            raise ValueError(f"lens: expected a grid with {len(self.tokens)} lines")
        return self


def node_row_fault(row: Row) -> str:
    """What is wrong with a row; empty if nothing is."""
    return form_fault(_NodeRow, row)
