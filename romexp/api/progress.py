"""A bar for what takes more than a few seconds, in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

DELAY_S = 3.0
"""Nothing is shown before."""


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """A function that is told how many items are done, and of how many (None if unknown). The bar goes at the end."""
    with tqdm(desc=label, delay=DELAY_S, leave=False) as shown:

        def report(done: int, total: int | None) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield report
