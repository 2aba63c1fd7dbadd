"""Errors that a user can mend. The command line prints them in one line, without a traceback."""

from __future__ import annotations


class RomexpError(Exception):
    """Base of every error caused by input: a config value, a file, a record, a model."""


class ConfigError(RomexpError):
    """A configuration value is missing, unknown or contradicts another one."""


class DataError(RomexpError):
    """A file is missing, unreadable, or not what its loader expects."""


class RecordError(DataError):
    """One record is bad. It is set aside, counted and reported; the run goes on.

    Args:
        message: what is wrong and what was expected.
        file: the file the record came from.
        index: the record's position in that file, or its case id.
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

    def at(self, index: int | None) -> RecordError:
        """The same error, of the record at this position."""
        return RecordError(self.reason, file=self.file, index=index, field=self.field)
