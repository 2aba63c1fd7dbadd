"""Texts from local files: plain text, JSON lines, Parquet; one by one, so that a file need not fit in memory."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from romexp.errors import DataError, RecordError

Unit = Literal["line", "paragraph", "file"]
PLAIN, LINES, COLUMNS = (".txt", ".txt.gz"), (".jsonl", ".jsonl.gz"), (".parquet",)
"""Endings of file names, by kind."""


def read_texts(file: Path, *, field: str, unit: Unit) -> Iterator[str]:
    """Every text of a file that is not blank, in order.

    Args:
        field: where the text is in a JSON line or a Parquet file.
        unit: what one text is in a plain text file.

    Raises:
        DataError: the file cannot be read as what its name says.
        RecordError: a record lacks the field or has no text there; names file, record and field.
    """
    if file.name.endswith(COLUMNS):
        texts = _parquet(file, field)
    elif file.name.endswith(LINES):
        texts = _json_lines(file, field)
    else:
        texts = _plain(file, unit)
    return (text for text in texts if text.strip())


def _lines(file: Path) -> Iterator[str]:
    try:
        with (gzip.open if file.name.endswith(".gz") else open)(file, "rt", encoding="utf-8") as lines:  # type: ignore[operator]
            yield from lines
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error})") from error


def _plain(file: Path, unit: Unit) -> Iterator[str]:
    if unit == "file":
        yield "".join(_lines(file))
        return
    paragraph: list[str] = []
    for line in _lines(file):
        if unit == "line":
            yield line.rstrip("\r\n")
        elif line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "".join(paragraph).rstrip("\r\n")
            paragraph = []
    if paragraph:
        yield "".join(paragraph).rstrip("\r\n")


def _json_lines(file: Path, field: str) -> Iterator[str]:
    for index, line in enumerate(_lines(file)):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise RecordError(f"not JSON ({error})", file=str(file), index=index) from error
        yield text_of(record, field, str(file), index)


def _parquet(file: Path, field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            if field not in table.schema_arrow.names:
                raise RecordError(
                    f"no such column; it has {', '.join(table.schema_arrow.names)}", file=str(file), field=field
                )
            index = 0
            for batch in table.iter_batches(columns=[field]):
                for value in batch.column(0).to_pylist():
                    yield text_of({field: value}, field, str(file), index)
                    index += 1
    except pyarrow.ArrowException as error:
        raise DataError(f"{file}: not a readable Parquet file ({error})") from error


def text_of(record: Any, field: str, file: str, index: int) -> str:
    """The text in a record's field.

    Raises:
        RecordError: there is none.
    """
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise RecordError(f"expected text, got {type(text).__name__}", file=file, index=index, field=field)
    return text
