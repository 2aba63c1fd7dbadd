"""Hides the progress bars of transformers where they last a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


@contextmanager
def without_weight_bars() -> Iterator[None]:
    """Hide the progress bars of reading and writing weights. Progress bars of downloads are not affected."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
