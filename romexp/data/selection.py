"""Which records of a file a run takes: `case_ids`, then `offset` and `limit`, then `shard`.

All of them count *records of the file*, good or bad: `limit=7500` names the same cases to everyone, as the
reference's "first `size` records" does (docs/method.md §1.1), and bad records among them make the run that much
smaller.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from romexp.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A choice of records.

    Attributes:
        limit: at most this many records; None is all.
        offset: records left out at the start.
        shard: `i/n` with i from 1 to n: of the records chosen so far, the i-th, (i+n)-th, (i+2n)-th …; the n shards
            together hold every record once, and differ by at most one in size.
        case_ids: only the records with these ids; file order and one copy of each, however they are listed.

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
        """Positions of the chosen records, in file order.

        Args:
            ids: each record's id; None where it has no usable one (such a record is never found by `case_ids`).
            file: named in errors.

        Raises:
            DataError: an id of `case_ids` is not in the file, or `offset` leaves nothing.
        """
        chosen = list(range(len(ids))) if self.case_ids is None else _with_ids(ids, self.case_ids, file)
        if self.offset and self.offset >= len(chosen):
            raise DataError(f"{file}: offset={self.offset} leaves none of {len(chosen)} records")
        end = None if self.limit is None else self.offset + self.limit
        first, count = parse_shard(self.shard)
        return chosen[self.offset : end][first::count]


def parse_shard(shard: str | None) -> tuple[int, int]:
    """`i/n` → (i − 1, n): where a shard starts and its step; None is the one shard that holds all.

    Raises:
        ConfigError: not of that form, or not 1 ≤ i ≤ n.
    """
    if shard is None:
        return 0, 1
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", str(shard))
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(f"shard: expected i/n with 1 <= i <= n, as 1/4, not {shard!r}")
    return number - 1, count


def _with_ids(ids: Sequence[int | None], wanted: Collection[int], file: str) -> list[int]:
    missing = sorted(set(wanted) - set(ids))
    if missing:
        listed = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        raise DataError(f"{file}: case_ids: no record has id {listed}")
    keep = set(wanted)
    return [position for position, number in enumerate(ids) if number in keep]
