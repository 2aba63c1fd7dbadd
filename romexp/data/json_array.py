"""Reads a JSON list record by record, so that memory need hold only the largest record and not the whole file.

The library `ijson` is not used. Its fast parser silently changes some texts (`"\\ud800"` becomes `"?"`), refuses
integers beyond 64 bits, and takes memory that grows with the square of the nesting depth (4 GB for 40 000 levels).
"""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from romexp.errors import DataError

_SPACE = " \t\r\n"


def stream_array(path: Path, *, chunk_bytes: int = 1 << 22) -> Iterator[Any]:
    """Yield the elements of the JSON list in `path`, decoded by the standard library.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is not a JSON list, or ends early; or a record exceeds a limit
            of Python's parser (an integer of thousands of digits, or a thousand levels of nesting).
    """
    try:
        with path.open("rb") as file:
            yield from _elements(_Text(file, path, chunk_bytes))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason})") from error


class _Text:
    """The text of a file as far as it was read. `buffer[position:]` is not parsed yet; `grow` reads more."""

    def __init__(self, file: BinaryIO, path: Path, chunk_bytes: int) -> None:
        self.path, self.buffer, self.position, self.ended = path, "", 0, False
        self._file, self._chunk = file, chunk_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()

    def grow(self) -> None:
        """Read more of the file: at least as much as is not parsed yet.

        This doubles the text, so that parsing a long record again and again takes linear time in total.
        """
        unparsed = self.buffer[self.position :]
        data = self._file.read(max(self._chunk, len(unparsed)))
        self.ended = not data
        self.buffer, self.position = unparsed + self._utf8.decode(data, final=self.ended), 0

    def peek(self) -> str:
        """Move to the next character that is not white space, and return it; `""` at the end of the file."""
        while True:
            while self.position < len(self.buffer):
                if self.buffer[self.position] not in _SPACE:
                    return self.buffer[self.position]
                self.position += 1
            if self.ended:
                return ""
            self.grow()

    def element(self, number: int) -> Any:
        """Parse one value. One that ends with the buffer may be incomplete (`1` of `12`), so more is read then."""
        while True:
            problem = None
            try:
                value, end = json.JSONDecoder().raw_decode(self.buffer, self.position)
            except json.JSONDecodeError as error:
                problem = error
            except ValueError as error:
                digits = f"an integer of more than {sys.get_int_max_str_digits()} digits"
                raise DataError(f"{self.path}, record {number}: cannot be read ({digits})") from error
            except RecursionError as error:
                raise DataError(f"{self.path}, record {number}: cannot be read (nested too deeply)") from error
            if problem is None and (self.ended or end < len(self.buffer)):
                self.position = end
                return value
            if problem is not None and self.ended:
                raise DataError(f"{self.path}, record {number}: not JSON ({problem.msg})") from problem
            self.grow()


def _elements(text: _Text) -> Iterator[Any]:
    if text.peek() != "[":
        raise DataError(f"{text.path}: expected a JSON list of records")
    text.position += 1
    number = 0
    while text.peek() != "]":
        if number:
            if text.peek() != ",":
                raise DataError(f"{text.path}, record {number}: expected a comma before it, or the end of the list")
            text.position += 1
            text.peek()
        yield text.element(number)
        number += 1
    text.position += 1
    if text.peek():
        raise DataError(f"{text.path}: text after the end of the list")
