"""The streaming reader gives what `json.load` gives, wherever its buffer ends."""

from __future__ import annotations

import json

import pytest

from romexp.data.json_array import Unreadable, stream_array
from romexp.errors import DataError

VALUES = [
    {"a": [1, {"b": ']},["\\'}], "text": "Édouard 東京 🗼\n"},
    12345,
    -1.5e10,
    "comma , and ] in a string",
    None,
    True,
    [],
    {},
    [[[1]]],
    67,
]


@pytest.mark.parametrize("chunk", [*range(1, 40), 1 << 20])
@pytest.mark.parametrize("options", [{}, {"indent": 3, "ensure_ascii": False}])
def test_equals_json_load_at_every_buffer_size(tmp_path, chunk, options):
    file = tmp_path / "a.json"
    file.write_text("\n " + json.dumps(VALUES, **options) + " \n", encoding="utf-8")
    assert list(stream_array(file, chunk_bytes=chunk)) == VALUES


def test_byte_order_mark_and_empty_list(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(" [ ] ", encoding="utf-8-sig")
    assert list(stream_array(file)) == []


def test_yields_before_the_file_is_read(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('[{"a": 1}, ' + " " * 1000 + "broken")
    stream = stream_array(file, chunk_bytes=16)
    assert next(stream) == {"a": 1}
    with pytest.raises(DataError, match="record 1: not JSON"):
        next(stream)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}', "expected a JSON list"),
        (b"", "expected a JSON list"),
        (b"[1, 2", "record 2: expected a comma"),
        (b"[1 2]", "record 1: expected a comma"),
        (b"[1, ]", "record 1: not JSON"),
        (b'[{"a": 1}, {"a":', "record 1: not JSON"),
        (b"[1] x", "text after the end"),
        (b'["\xff"]', "not UTF-8"),
        (b"[1, " + b'{"a": ' * 100_000, "record 1: not JSON .it does not end"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_broken_files_give_one_line(tmp_path, content, message, chunk):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(stream_array(file, chunk_bytes=chunk))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_what_python_cannot_read_costs_no_other_record(tmp_path, chunk):
    file = tmp_path / "a.json"
    tricky = '{"a\\"]": [' * 3000 + '"]}"' + "]}" * 3000
    file.write_text('[1, {"a": ' + "9" * 5000 + "}, " + "[" * 9000 + "]" * 9000 + f', {tricky}, -{"9" * 5000}, "last"]')
    digits, deep = Unreadable("an integer of 5,000 digits"), Unreadable("nested too deeply")
    assert list(stream_array(file, chunk_bytes=chunk)) == [1, {"a": digits}, deep, deep, digits, "last"]


def test_what_python_reads_beyond_the_standard_is_kept(tmp_path):
    """A record with such a value is judged by its data set, so that it does not cost the whole file."""
    file = tmp_path / "a.json"
    file.write_text('[123456789012345678901234567890, 1e400, -Infinity, "\\ud800", {"a": 1, "a": 2}, NaN]')
    *values, last = stream_array(file)
    assert values == [123456789012345678901234567890, float("inf"), float("-inf"), "\ud800", {"a": 2}]
    assert last != last, "not a number"


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        list(stream_array(tmp_path / "none.json"))
