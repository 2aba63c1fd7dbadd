"""Reads the rows of tables (CSV, TSV, Parquet) as records, one by one."""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from romexp.data.json_array import Unreadable, decode, unreadable_in_errors
from romexp.errors import DataError
from romexp.unpacked import GZIP_MAGIC, check_unpacked_size, open_unpacked

DELIMITERS = (",", ";", "\t")
"""What may separate the cells of a CSV file. The one that its header has most often is taken."""

LONGEST_CELL = 1 << 24
LONGEST_LITERAL = 1 << 20
"""Most characters of a cell, and of a cell that is read as a list or an object."""

_ROWS = 1000


class Row(dict[str, Any]):
    """A row of a CSV or TSV file. All its values are texts, or lists and objects of a cell that holds one."""


def stream_rows(path: Path, *, delimiter: str | None = None) -> Iterator[Any]:
    """Yield the rows of a CSV or TSV file as `Row`; the first line names the columns.

    An empty cell is left out of its row. A cell with a JSON list or object, or such a literal of Python (as pandas
    writes it), becomes that list or object. A column `a.b` becomes the field b of an object a. `Unreadable` stands for
    a row with more cells than there are columns.

    Args:
        delimiter: what separates cells; None takes the one of `DELIMITERS` that the header has most often.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or has no header or the same column twice.
    """
    where, number = "the header", 0
    try:
        with (
            unreadable_in_errors(path),
            open_unpacked(path) as file,
            io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
        ):
            rows = csv.reader(_lines(text), delimiter=delimiter or _delimiter(path), strict=True)
            names = _header(path, next(rows, []))
            where = "record 0"
            for cells in rows:
                if any(cell.strip() for cell in cells):
                    yield _row(names, cells)
                    number += 1
                    where = f"record {number}"
    except csv.Error as error:
        raise DataError(f"{path}, {where}: not a row of a table ({error})") from error


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """The lines of a file. Meanwhile a cell may be longer than the 131,072 characters that Python allows, which a list
    of prompts can exceed.
    """
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        yield from text
    finally:
        csv.field_size_limit(before)


def _delimiter(path: Path) -> str:
    with open_unpacked(path) as file:
        first = file.readline(1 << 16).decode("utf-8", errors="replace")
    outside = "".join(part for i, part in enumerate(first.split('"')) if not i % 2)
    return max(DELIMITERS, key=outside.count)


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise DataError(f"{path}: expected a first line with the names of the columns")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} is there twice")
    return names


def _row(names: list[str], cells: list[str]) -> Row | Unreadable:
    if len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
        return Unreadable(f"a row of {len(cells)} cells under a header of {len(names)}")
    row = Row()
    for name, cell in zip(names, cells, strict=False):
        if not name or not cell.strip():
            continue
        *way, last = name.split(".")
        place: dict[str, Any] = row
        for part in way:
            inner = place.setdefault(part, {})
            place = inner if isinstance(inner, dict) else {}
        place[last] = _cell(cell)
    return row


def _cell(text: str) -> Any:
    """The cell's list or object if it holds one, else its text. A template may begin with `{}`."""
    inner = text.strip()
    if inner == "{}" or (inner[0], inner[-1]) not in (("[", "]"), ("{", "}")) or len(inner) > LONGEST_LITERAL:
        return text
    for read in (decode, ast.literal_eval):
        try:
            value = read(inner)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        if isinstance(value, dict | list):
            return value
    return text


def stream_parquet(path: Path) -> Iterator[Any]:
    """Yield the rows of a Parquet file as dicts, without the fields that are null.

    Raises:
        DataError: the file cannot be read as Parquet, or would unpack to too much.
    """
    import pyarrow
    import pyarrow.parquet

    packed, read = path.stat().st_size, 0
    try:
        # Without `pre_buffer`, only the pages that are asked for are read, and not whole groups of rows.
        with pyarrow.parquet.ParquetFile(_seekable(path), pre_buffer=False, buffer_size=1 << 20) as table:
            groups = map(table.metadata.row_group, range(table.metadata.num_row_groups))
            check_unpacked_size(path, packed, sum(group.total_byte_size for group in groups))
            for batch in table.iter_batches(batch_size=_ROWS):
                read += batch.nbytes  # A text that is repeated a million times is stored once.
                check_unpacked_size(path, packed, read, at_least=True)
                yield from (without_nulls(row) for row in batch.to_pylist())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason})") from error
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable Parquet file ({reason})") from error


def _seekable(path: Path) -> Any:
    """The file, or its unpacked content: a Parquet file is read from its end."""
    with path.open("rb") as file:
        if file.read(2) != GZIP_MAGIC:
            return path
    with unreadable_in_errors(path), open_unpacked(path) as content:
        return io.BytesIO(content.read())


def without_nulls(value: Any) -> Any:
    """The value without the fields of objects that are null. Tables have a null where a record lacks a field."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value
