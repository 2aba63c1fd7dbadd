"""A progress bar for work that takes more than a few seconds, in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

DELAY_S = 3.0
"""Seconds of work before the bar is shown."""


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function to call with the number of finished items and the number of all items (None if unknown).

    The bar disappears when the context ends.
    """
    with tqdm(desc=label, delay=DELAY_S, leave=False) as shown:

        def report(done: int, total: int | None) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield report
