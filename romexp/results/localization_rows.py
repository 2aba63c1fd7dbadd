"""The form of a row of `task=localization` (docs/method.md §14.5), to check rows from disk."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Strict, model_validator

from romexp.measured import form_fault
from romexp.results.rows import Row

_Number = Annotated[float, Strict()]
_Pair = tuple[_Number, _Number] | None


class _Edit(BaseModel):
    method: str
    objective: str
    layer: int
    error: str = ""
    rewrite: _Pair = None
    paraphrase: _Pair = None
    neighborhood: _Pair = None


class _LocalizationRow(BaseModel):
    correct_prediction: bool
    high_score: _Number
    low_score: _Number | None = None
    fraction: list[_Number] = []
    fraction_last_subject: list[_Number] = []
    edits: list[_Edit] = []
    skipped: dict[str, str] = {}

    @model_validator(mode="after")
    def _parts_fit(self) -> _LocalizationRow:
        if self.correct_prediction and not self.fraction:
            raise ValueError("fraction: missing")
        if len(self.fraction) != len(self.fraction_last_subject):
            raise ValueError("fraction and fraction_last_subject: expected one number for each layer")
        for edit in self.edits:
            if not 0 <= edit.layer < len(self.fraction):
                raise ValueError(f"edits: layer {edit.layer} is outside 0…{len(self.fraction) - 1}")
        return self


def localization_row_fault(row: Row) -> str:
    """What is wrong with a row that should be one of a study of localization; empty if nothing is."""
    return form_fault(_LocalizationRow, row)
