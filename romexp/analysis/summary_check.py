"""Checks whether a `summary.json` is a summary of edits, before tables are made from it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class _Statistics(BaseModel):
    model_config = ConfigDict(strict=True)

    mean: float | None
    half_width: float | None = None
    n: int


class _Summary(BaseModel):
    model_config = ConfigDict(strict=True)

    n_cases: int
    n_failed: int
    pre: dict[str, _Statistics]
    post: dict[str, _Statistics]


def is_summary(value: Any, *, count: int | None = None) -> bool:
    """Whether a value has the form of `romexp.analysis.summary.summarize`, with both sides.

    Args:
        count: the number of cases that it must be of; None takes any.
    """
    try:
        found = _Summary.model_validate(value)
    except ValidationError:
        return False
    return count is None or found.n_cases + found.n_failed == count
