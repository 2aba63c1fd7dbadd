"""Reads the records of a file one by one: JSON, JSON lines, CSV, TSV or Parquet, each also packed by gzip.

The content tells the format where it can; the file's name tells CSV and TSV. A record that cannot be read costs no
other record where the format says where the next one begins: `Unreadable` stands in its place, and its data set
rejects it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from romexp.data.json_array import Unreadable, decode, stream_array, unreadable_in_errors
from romexp.data.table_rows import stream_parquet, stream_rows
from romexp.unpacked import open_unpacked

Format = Literal["list", "lines", "csv", "tsv", "parquet"]

LINES = (".jsonl", ".ndjson")
"""Endings of the names of files with one JSON value on each line."""

_HEAD = 1 << 16
_PARQUET_MAGIC = b"PAR1"
_BOM = "\ufeff"


def stream_records(path: Path) -> Iterator[Any]:
    """Yield the records of a file in order, decoded into dicts, lists, texts and numbers.

    Nothing is read beyond the record that is asked for, apart from a buffer of a few megabytes.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or has none of the formats; or it ends early.
    """
    match format_of(path):
        case "list":
            yield from stream_array(path)
        case "lines":
            yield from _stream_lines(path)
        case "parquet":
            yield from stream_parquet(path)
        case "csv" | "tsv" as table:
            yield from stream_rows(path, delimiter="\t" if table == "tsv" else None)


def format_of(path: Path) -> Format:
    """The format of a file, by its first bytes and its name.

    Raises:
        DataError: the file cannot be read.
    """
    name = path.name.lower().removesuffix(".gz")
    with unreadable_in_errors(path), open_unpacked(path) as file:
        head = file.read(_HEAD)
    if head[:4] == _PARQUET_MAGIC or name.endswith(".parquet"):
        return "parquet"
    if name.endswith((".csv", ".tsv")):
        return "tsv" if name.endswith(".tsv") else "csv"
    text = head.decode("utf-8", errors="replace").lstrip(_BOM).lstrip()
    if name.endswith(LINES):
        return "list" if _begins_a_list_of_lines(text) else "lines"
    return "lines" if text.startswith("{") and _is_whole(text.partition("\n")[0], head) else "list"


def _begins_a_list_of_lines(text: str) -> bool:
    """Whether a file that is named as JSON lines is one list instead, which begins in its first line."""
    return text.startswith("[") and not _is_whole(text.partition("\n")[0], b"")


def _is_whole(line: str, head: bytes) -> bool:
    """Whether a line holds a whole JSON object; a line longer than the part that was read is taken for one."""
    if len(head) == _HEAD and b"\n" not in head:
        return True
    try:
        return isinstance(decode(line), dict)
    except ValueError:
        return False


def _stream_lines(path: Path) -> Iterator[Any]:
    with (
        unreadable_in_errors(path),
        open_unpacked(path) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig") as lines,
    ):
        for line in lines:
            if line.strip():
                try:
                    yield decode(line)
                except ValueError as error:
                    yield Unreadable(f"a line that is not JSON ({getattr(error, 'msg', error)})")
