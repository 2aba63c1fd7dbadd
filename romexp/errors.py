"""Errors that a user can mend. The command line prints them in one line, without a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class RomexpError(Exception):
    """Base of every error caused by input: a config value, a file, a record, a model."""


class ConfigError(RomexpError):
    """A configuration value is missing, unknown or contradicts another one."""


class DataError(RomexpError):
    """A file is missing, unreadable, or not what its loader expects."""


class RecordError(DataError):
    """One record is bad. It is set aside, counted and reported; the run goes on.

    Where many items are worked on at once, the error of a bad one stands in its place among the results.

    Args:
        message: what is wrong and what was expected.
        file: the file the record came from.
        index: the record's position in that file.
        field: the field at fault.
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
    """What `make` returns, or the `RecordError` that it raises."""
    try:
        return make()
    except RecordError as error:
        return error


def without_errors(items: Iterable[T | RecordError]) -> list[T]:
    """The items that are no errors, in order."""
    return [item for item in items if not isinstance(item, RecordError)]


def with_errors_in_place(items: Iterable[object], results: Iterable[T]) -> list[T | RecordError]:
    """Results of those of the items that are no errors; an item that is one keeps its place.

    Args:
        items: in order.
        results: of `without_errors(items)`, in the same order.
    """
    following = iter(results)
    return [item if isinstance(item, RecordError) else next(following) for item in items]


def raise_first_error(items: Iterable[T | RecordError]) -> list[T]:
    """The items, where no one of them may be bad.

    Raises:
        RecordError: the first of them that is an error.
    """
    whole = []
    for item in items:
        if isinstance(item, RecordError):
            raise item
        whole.append(item)
    return whole
