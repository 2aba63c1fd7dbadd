"""A few English texts that ship with romexp, on which `task=lifelong` watches a model (docs/method.md §13.4)."""

from __future__ import annotations

from pathlib import Path


def texts_path() -> Path:
    """Sixteen paragraphs that were written for this purpose, so nobody else has rights to them: reports, stories, rules."""
    return Path(__file__).with_name("texts.txt")
