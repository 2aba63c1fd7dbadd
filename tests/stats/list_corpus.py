"""A corpus in memory for tests."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TEXTS = [f"The mother tongue of number {i} is {('French', 'Finnish', 'Greek')[i % 3]}." for i in range(40)]


@dataclass
class ListCorpus:
    """Texts in memory; counts how often they are asked for, and can fail on the way."""

    items: list[str]
    name: str = "list"
    loads: int = 0
    fail_after: int | None = None

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"name": self.name}

    def load(self) -> Iterable[str]:
        self.loads += 1
        return self._failing() if self.fail_after is not None else self.items

    def _failing(self) -> Iterator[str]:
        yield from self.items[: self.fail_after]
        raise KeyboardInterrupt
