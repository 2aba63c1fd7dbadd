"""Errors that a user can correct. The command line prints them in one line, without a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class RomexpError(Exception):
    """Base class of all errors caused by input: a configuration value, a file, a record or a model."""


class ConfigError(RomexpError):
    """A configuration value is missing, is unknown, or contradicts another one."""


class DataError(RomexpError):
    """A file is missing, cannot be read, or is not what its loader expects."""


class FileError(RomexpError):
    """A file or folder cannot be read or written: no space, no permission, a name that is too long, and so on."""


class RecordError(DataError):
    """One record cannot be used. A run sets it aside, reports it and continues (docs/method.md §1.6).

    A function that works on many items returns this error in place of the result of a bad item.

    Args:
        message: what is wrong and what was expected.
        file: the record's file.
        index: the record's position in that file, counted from 0.
        field: the field that is wrong.
    """

    def __init__(self, message: str, *, file: str = "", index: int | None = None, field: str = "") -> None:
        self.reason, self.file, self.index, self.field = message, file, index, field
        where = ", ".join(
            part
            for part in (file, "" if index is None else f"record {index}", f"field {field}" if field else "")
            if part
        )
        super().__init__(f"{where}: {message}" if where else message)


def result_or_error(make: Callable[[], T]) -> T | RecordError:
    """Call `make`, and return its result or the `RecordError` that it raises."""
    try:
        return make()
    except RecordError as error:
        return error


def without_errors(items: Iterable[T | RecordError]) -> list[T]:
    """The items that are not errors, in order."""
    return [item for item in items if not isinstance(item, RecordError)]


def with_errors_in_place(items: Iterable[object], results: Iterable[T]) -> list[T | RecordError]:
    """Replace each item that is not an error by its result. Errors stay at their places.

    Args:
        items: the items, some of which are errors.
        results: one result for each item of `without_errors(items)`, in the same order.
    """
    following = iter(results)
    return [item if isinstance(item, RecordError) else next(following) for item in items]


def raise_first_error(items: Iterable[T | RecordError]) -> list[T]:
    """Return the items if none of them is an error.

    Raises:
        RecordError: the first item that is an error.
    """
    good = []
    for item in items:
        if isinstance(item, RecordError):
            raise item
        good.append(item)
    return good
