"""limit, offset, shard and case_ids: which records a run takes."""

from __future__ import annotations

import itertools

import pytest

from romexp.data.selection import Selection, parse_shard
from romexp.errors import ConfigError, DataError


def chosen(n: int, **fields: object) -> list[int]:
    return Selection(**fields).positions(list(range(100, 100 + n)), file="f.json")  # type: ignore[arg-type]


def test_nothing_chosen_is_all():
    assert chosen(5) == [0, 1, 2, 3, 4]


def test_offset_and_limit():
    assert chosen(5, offset=1, limit=2) == [1, 2]
    assert chosen(5, limit=50) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("n", "shards"), list(itertools.product([0, 1, 2, 7, 12], [1, 2, 3, 5, 13])))
def test_shards_cover_everything_once_and_evenly(n, shards):
    parts = [chosen(n, shard=f"{i}/{shards}") for i in range(1, shards + 1)]
    assert sorted(itertools.chain(*parts)) == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(part == sorted(part) for part in parts)


def test_shards_divide_what_offset_and_limit_leave():
    parts = [chosen(20, offset=3, limit=9, shard=f"{i}/2") for i in (1, 2)]
    assert parts == [[3, 5, 7, 9, 11], [4, 6, 8, 10]]


def test_case_ids_come_first_in_file_order():
    assert chosen(9, case_ids=[107, 101, 104, 101]) == [1, 4, 7]
    assert chosen(9, case_ids=[107, 101, 104], offset=1, limit=1) == [4]


def test_unknown_case_ids_are_named():
    with pytest.raises(DataError, match=r"f.json: case_ids: no record has id 5, 999$"):
        chosen(9, case_ids=[101, 999, 5])


def test_an_offset_beyond_the_end_is_an_error():
    with pytest.raises(DataError, match="offset=9 leaves none of 9"):
        chosen(9, offset=9)
    assert chosen(9, offset=8) == [8]


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1/0", "1", "a/b", "-1/4", "1/4/2", ""])
def test_bad_shards(shard):
    with pytest.raises(ConfigError, match="shard: expected i/n"):
        Selection(shard=shard)


@pytest.mark.parametrize(("field", "value"), [("limit", 0), ("limit", -1), ("offset", -1)])
def test_bad_numbers(field, value):
    with pytest.raises(ConfigError, match=field):
        Selection(**{field: value})


def test_parse_shard():
    assert parse_shard("2/4") == (1, 4)
    assert parse_shard(None) == (0, 1)
