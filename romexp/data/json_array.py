"""Reads a JSON list record by record, so that memory need hold only the largest record and not the whole file.

The library `ijson` is not used. Its fast parser silently changes some texts (`"\\ud800"` becomes `"?"`), refuses
integers beyond 64 bits, and takes memory that grows with the square of the nesting depth (4 GB for 40 000 levels).
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from romexp.errors import DataError
from romexp.os_errors import path_in_errors
from romexp.unpacked import open_unpacked

_SPACE = " \t\r\n"


_MARK = re.compile(r'"(?:[^"\\]++|\\.)*+"|["\[\]{}]', re.DOTALL)
"""A whole string, or a bracket; a quotation mark alone begins a string that does not end."""


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value of a file, or for a whole record, that cannot be read. It fits no type of a field.

    Attributes:
        what: what stands there: `an integer of 5,000 digits`, `nested too deeply`, `a line that is not JSON`.
    """

    what: str

    def __repr__(self) -> str:
        return self.what


def stream_array(path: Path, *, chunk_bytes: int = 1 << 22) -> Iterator[Any]:
    """Yield the elements of the JSON list in `path`, decoded by the standard library. gzip is unpacked.

    `Unreadable` stands in the place of an integer of thousands of digits, and of an element with about a thousand
    levels of nesting. So such a record costs no other record, and is judged by its data set.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is not a JSON list, or ends early.
    """
    with unreadable_in_errors(path), open_unpacked(path) as file:
        yield from _elements(_Text(file, path, chunk_bytes))


@contextmanager
def unreadable_in_errors(path: Path) -> Iterator[None]:
    """Inside the context, errors of reading a file of text become one that names the file.

    Raises:
        DataError: the file cannot be read, its gzip data are damaged, or it is not UTF-8.
    """
    try:
        with path_in_errors(path):
            yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason})") from error


class _Text:
    """The text of a file as far as it was read. `buffer[position:]` is not parsed yet; `grow` reads more."""

    def __init__(self, file: IO[bytes], path: Path, chunk_bytes: int) -> None:
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
            problem, end = "", None
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.position)
            except json.JSONDecodeError as error:
                problem = error.msg
            except RecursionError:
                value, end = Unreadable("nested too deeply"), _end_of_nested(self.buffer, self.position)
                problem = "" if end else "it does not end"
            if end is not None and (self.ended or end < len(self.buffer)):
                self.position = end
                return value
            if self.ended:
                raise DataError(f"{self.path}, record {number}: not JSON ({problem})")
            self.grow()


def decode(text: str) -> Any:
    """The value of a text that holds one JSON value. `Unreadable` stands for a value that Python refuses.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        return Unreadable("nested too deeply")


def _integer(digits: str) -> int | Unreadable:
    try:
        return int(digits)
    except ValueError:  # Python refuses thousands of digits, since converting them takes quadratic time.
        return Unreadable(f"an integer of {len(digits.lstrip('-')):,} digits")


_DECODER = json.JSONDecoder(parse_int=_integer)


def _end_of_nested(text: str, start: int) -> int | None:
    """The end of the list or object that begins at `start`, found by its brackets alone; None if it does not end."""
    depth = 0
    for mark in _MARK.finditer(text, start):
        match mark[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth -= 1
            case '"':  # A string that does not end in this text.
                return None
        if not depth:
            return mark.end()
    return None


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
