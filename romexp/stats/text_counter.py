"""Counts the texts and tokens of a pass, and ends it after a number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(kw_only=True)
class TextCounter:
    """How much of the texts was read, and how much remains.

    Attributes:
        total: number of all texts; None if unknown.
        total_tokens: the largest number of tokens to read; None reads all.
        texts: number of texts read.
        tokens: number of tokens read.
    """

    total: int | None
    total_tokens: int | None
    texts: int
    tokens: int

    @property
    def wants_more(self) -> bool:
        return self.total_tokens is None or self.tokens < self.total_tokens

    @property
    def state(self) -> tuple[int, int | None]:
        """What is reported: the number of items done and of all items."""
        return (self.texts, self.total) if self.total_tokens is None else (self.tokens, self.total_tokens)

    def cut(self, rows: Sequence[list[int]]) -> tuple[list[list[int]], int]:
        """Cut texts so that all of them together have no more tokens than remain.

        Returns:
            The texts that have tokens, and the number of texts that were needed, empty ones included.
        """
        if self.total_tokens is None:
            return [row for row in rows if row], len(rows)
        left = self.total_tokens - self.tokens
        kept: list[list[int]] = []
        for read, row in enumerate(rows):
            if left <= 0:
                return kept, read
            if row:
                kept.append(row[:left])
            left -= len(row)
        return kept, len(rows)

    def add(self, rows: Sequence[Sequence[int]]) -> None:
        self.texts += len(rows)
        self.tokens += sum(map(len, rows))
