"""The form of a row of `task=trace` (docs/method.md §11.2), to check rows from disk."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Strict, model_validator

from romexp.measured import form_fault
from romexp.results.rows import Row

_Number = Annotated[float, Strict()]
_Grid = list[list[_Number | None]] | None


class _TraceRow(BaseModel):
    tokens: list[str]
    subject_range: tuple[int, int]
    answer: str
    high_score: _Number
    correct_prediction: bool
    low_score: _Number | None = None
    hidden: _Grid = None
    mlp: _Grid = None
    attn: _Grid = None
    severed_mlp: list[_Number] | None = None
    severed_attn: list[_Number] | None = None
    integrated_gradients: list[_Number] | None = None
    setting: dict[str, str | bool] = {}

    @model_validator(mode="after")
    def _parts_fit(self) -> _TraceRow:
        begin, end = self.subject_range
        if not 0 <= begin < end <= len(self.tokens):
            raise ValueError(f"subject_range {begin} to {end} is not within {len(self.tokens)} tokens")
        if self.correct_prediction and self.low_score is None:
            raise ValueError("low_score: missing")
        for name in ("hidden", "mlp", "attn"):
            grid: _Grid = getattr(self, name)
            if grid and (len(grid) != len(self.tokens) or len({len(line) for line in grid}) != 1):
                raise ValueError(f"{name}: expected a grid with {len(self.tokens)} lines of equal length")
        if (self.severed_mlp is None) != (self.severed_attn is None):
            raise ValueError("severed_mlp and severed_attn: one of them is missing")
        return self


def trace_row_fault(row: Row) -> str:
    """What is wrong with a row that should be a trace; empty if nothing is."""
    return form_fault(_TraceRow, row)
