"""A few English texts that ship with romexp, on which `task=lifelong` watches a model (docs/method.md §13.4)."""

from __future__ import annotations

from pathlib import Path


def texts_path() -> Path:
    """Sixteen paragraphs, of reports, stories and rules. They were written for this, so nobody has rights to them."""
    return Path(__file__).with_name("texts.txt")
