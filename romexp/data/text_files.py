"""Reads the texts of one file: plain text, JSON lines or Parquet.

A bad record ends the reading with a `DataError` that names file, line and field. It is never a `RecordError`: corpora
are read while facts are edited, and a `RecordError` would set those facts aside.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from romexp.errors import DataError
from romexp.unpacked import check_unpacked_size, open_gzip_text

PLAIN, LINES, COLUMNS = (".txt", ".txt.gz"), (".jsonl", ".jsonl.gz"), (".parquet",)
"""Endings of the names of plain text files, JSON-lines files and Parquet files."""

Unit = Literal["line", "paragraph", "file"]
"""What one text of a plain text file is."""

ENOUGH_PARAGRAPHS = 10
LONG_PARAGRAPH = 4000
"""Plain text is cut into paragraphs if it has at least `ENOUGH_PARAGRAPHS` of them, and their mean length is at most
`LONG_PARAGRAPH` characters."""

MOST_NAMES = 10
"""Most names of fields that an error shows."""


def read_texts(file: Path, *, field: str, unit: Unit) -> Iterator[str]:
    """Every text of a file that is not blank, in order.

    Args:
        field: the JSON field or Parquet column that holds the text.
        unit: what one text of a plain text file is (see `romexp.data.corpora.TextCorpus`).

    Raises:
        DataError: the file cannot be read as the type that its name has, or a record lacks the field, or the field is
            not text. The error names file, line or record, and field.
    """
    if file.name.endswith(COLUMNS):
        texts = _parquet(file, field)
    elif file.name.endswith(LINES):
        texts = _json_lines(file, field)
    else:
        texts = _plain_texts(file, unit)
    return (text for text in texts if text.strip())


def best_unit(files: Iterable[Path]) -> tuple[Unit, int]:
    """How plain text files are best cut into texts, all in the same way.

    Returns:
        `paragraph` if they have enough paragraphs that are not too long (see `ENOUGH_PARAGRAPHS`), else `line`; and
        the number of paragraphs.

    Raises:
        DataError: a file cannot be read as UTF-8 text.
    """
    lengths = [len(text) for file in files for text in read_texts(file, field="", unit="paragraph")]
    fits = len(lengths) >= ENOUGH_PARAGRAPHS and sum(lengths) <= LONG_PARAGRAPH * len(lengths)
    return "paragraph" if fits else "line", len(lengths)


def text_of(record: Any, field: str, where: str) -> str:
    """The text in a record's field.

    Args:
        where: file and line, for the error message.

    Raises:
        DataError: the field is missing or not text.
    """
    place = f"{where}, field {field}"
    if not isinstance(record, dict):
        raise DataError(f"{place}: expected an object with this field, got {type(record).__name__}")
    if field not in record:
        known = ", ".join(str(name)[:40] for name in list(record)[:MOST_NAMES]) or "nothing"
        known += ", …" * (len(record) > MOST_NAMES)
        raise DataError(f"{place}: missing; the record has {known} (corpus.field says which field holds the text)")
    text = record[field]
    if not isinstance(text, str):
        raise DataError(f"{place}: expected text, got {'null' if text is None else type(text).__name__}")
    if not _is_unicode(text):
        raise DataError(f"{place}: expected text, got half of a surrogate pair, which is no character")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines(file: Path) -> Iterator[str]:
    try:
        with open_gzip_text(file) if file.name.endswith(".gz") else file.open(encoding="utf-8") as lines:
            yield from lines
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error})") from error


def _plain_texts(file: Path, unit: Unit) -> Iterator[str]:
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
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # A ValueError also stands for an integer of too many digits.
            raise DataError(f"{file}, line {number}, field {field}: not JSON ({error})") from error
        yield text_of(record, field, f"{file}, line {number}")


def _parquet(file: Path, field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    index = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            check_column(table.schema_arrow.names, field, str(file))
            packed, index, characters = file.stat().st_size, 0, 0
            groups = map(table.metadata.row_group, range(table.metadata.num_row_groups))
            check_unpacked_size(file, packed, sum(group.total_byte_size for group in groups))
            for batch in table.iter_batches(batch_size=1000, columns=[field]):
                for value in (scalar.as_py() for scalar in batch.column(0)):
                    # A text that is repeated a million times is stored once.
                    characters += len(value) if isinstance(value, str) else 0
                    check_unpacked_size(file, packed, characters, at_least=True)
                    yield text_of({field: value}, field, f"{file}, record {index}")
                    index += 1
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, from record {index}, field {field}: not UTF-8 text ({error.reason})") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error})") from error


def check_column(names: Sequence[str], field: str, where: str) -> None:
    """Refuse a table that lacks the column of the texts.

    Raises:
        DataError: `field` is none of `names`.
    """
    if field not in names:
        raise DataError(
            f"{where}: no column {field!r}; it has {', '.join(names)} (corpus.field says which column holds the text)"
        )
