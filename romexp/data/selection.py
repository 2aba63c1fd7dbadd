"""Selects records of a file: first by `case_ids`, then by `offset` and `limit`, then by `shard` (docs/method.md §1.6).

All of them count valid and invalid records of the file. So `limit=7500` selects the same records for everyone, as in
the authors' code. Invalid records among them are not replaced, so the run has fewer cases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from romexp.errors import ConfigError, DataError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A selection of records.

    Attributes:
        limit: at most this many records; None selects all.
        offset: number of records to skip at the start.
        shard: `i/n` with i from 1 to n selects the i-th, (i+n)-th, (i+2n)-th, … of the records that the other fields
            select. The n shards together hold every record once, and their sizes differ by at most one.
        case_ids: only the records with these ids. They come in file order and once each, however they are listed here.

    Raises:
        ConfigError: a field is out of range.
    """

    limit: int | None = None
    offset: int = 0
    shard: str | None = None
    case_ids: Collection[int] | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit: expected a number of records from 1 up, or null for all, not {self.limit}")
        if self.offset < 0:
            raise ConfigError(f"offset: expected a number of records from 0 up, not {self.offset}")
        parse_shard(self.shard)

    def positions(self, ids: Sequence[int | None], *, file: str) -> list[int]:
        """Positions of the selected records, in file order.

        Args:
            ids: the id of each record of the file; None for a record without a valid id. `case_ids` never selects that.
            file: name of the file, for errors.

        Raises:
            DataError: an id of `case_ids` is not in the file, or `offset` skips all records.
        """
        return [position for position, _ in self.select(enumerate(ids), lambda item: item[1], file=file)]

    def select(self, records: Iterable[T], id_of: Callable[[T], int | None], *, file: str) -> list[T]:
        """The selected records, in file order. No record is read that cannot change the selection.

        Args:
            records: all records of the file, in order.
            id_of: the id of a record; None for a record without a valid id. `case_ids` never selects that.
            file: name of the file, for errors.

        Raises:
            DataError: an id of `case_ids` is not in the file, or `offset` skips all records.
        """
        end = None if self.limit is None else self.offset + self.limit
        first, step = parse_shard(self.shard)
        chosen: list[T] = []
        wanted = None if self.case_ids is None else set(self.case_ids)
        missing: set[int | None] = set(wanted or ())
        number = 0
        for record in records:
            if wanted is not None:
                if (found := id_of(record)) not in wanted:
                    continue
                missing.discard(found)
            if self.offset <= number and (end is None or number < end) and (number - self.offset) % step == first:
                chosen.append(record)
            number += 1
            if wanted is None and number == end:  # With ids, the rest of the file tells which of them are missing.
                break
        if missing:
            raise DataError(f"{file}: case_ids: no record has id {_listed(missing)}")
        if self.offset and self.offset >= number:
            raise DataError(f"{file}: offset={self.offset} leaves none of {number} records")
        return chosen


def parse_shard(shard: str | None) -> tuple[int, int]:
    """Turn `i/n` into the start i − 1 and the step n of a slice. None selects everything, as `1/1` does.

    Raises:
        ConfigError: the text is not of that form, or not 1 ≤ i ≤ n.
    """
    if shard is None:
        return 0, 1
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", str(shard))
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(f"shard: expected i/n with 1 <= i <= n, for example 1/4, not {shard!r}")
    return number - 1, count


def _listed(missing: Collection[int | None]) -> str:
    first = sorted(number for number in missing if number is not None)[:10]
    return ", ".join(map(str, first)) + (", …" if len(missing) > 10 else "")
