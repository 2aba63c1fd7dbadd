"""The base of all data sets of records: it finds the file, selects and validates records, and sets bad ones aside."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ValidationError

from romexp.data.download import FileSource
from romexp.data.record_stream import stream_records
from romexp.data.schema import explain, shown, whole_number
from romexp.data.selection import Selection
from romexp.data.table_rows import Row
from romexp.errors import DataError, RecordError
from romexp.files import cache_folder, kept_sha256

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A record that was set aside. The run's manifest lists it (docs/method.md §11.1).

    Attributes:
        file: the file that holds it.
        index: its position in that file, from 0.
        field: the invalid field, for example `requested_rewrite.target_new.str` or `paraphrase_prompts[1]`.
        reason: what was expected.
    """

    file: str
    index: int
    field: str
    reason: str

    @property
    def text(self) -> str:
        """Position, field and reason, for a message that has named the file already."""
        return f"record {self.index}, field {self.field}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Loaded(Generic[T]):
    """The selected part of a data set.

    Attributes:
        items: the valid records, in file order.
        rejected: the selected records that were set aside, in file order.
        name: the data set's short name.
        path: the file that was read.
        sha256: digest of the whole file, even if only a part was selected.
    """

    items: tuple[T, ...]
    rejected: tuple[Rejected, ...]
    name: str
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RecordFile(Selection, FileSource, Generic[T]):
    """A file of records: JSON, JSON lines, CSV, TSV or Parquet, or a data set of the hub (see `romexp.data.download`).

    A subclass turns one raw record into an item by `parse`.

    Attributes, besides those of `FileSource` and `Selection`:
        name: short name in folders and tables.
        id_field: the field of a record that holds its id.
    """

    name: str = ""
    id_field: ClassVar[str] = "case_id"

    def load(self) -> Loaded[T]:
        """Read and validate the selected records. The file is read only as far as the selection needs it.

        If several records of the file have the same id, only the first of them is valid, whatever part is selected.

        Raises:
            DataError: the file is missing or has none of the formats, or the selection asks for records that are not
                there, or no record of the whole file is valid. (A shard without a valid record is no error.)
        """
        file = self.locate()
        entries = _Entries(self, file)
        items: list[T] = []
        rejected: list[Rejected] = []
        for entry in self.select(entries, lambda entry: entry.number, file=str(file)):
            item = self._parsed(entry)
            if isinstance(item, RecordError):
                rejected.append(_reject(file, entry.index, item.field, item.reason))
            else:
                items.append(item)
        if rejected and not items:
            self._refuse_if_none_is_valid(file, rejected[0])
        return Loaded(
            items=tuple(items),
            rejected=tuple(rejected),
            name=self.name,
            path=str(file),
            sha256=kept_sha256(file, cache_folder(self.cache_dir)),
        )

    def _parsed(self, entry: _Entry) -> T | RecordError:
        if entry.first != entry.index:
            shown_id = shown(entry.key)
            return RecordError(f"id {shown_id} is already that of record {entry.first}", field=self.id_field)
        try:
            return self.parse(entry.index, entry.record)
        except ValidationError as error:
            field, reason = explain(error)
            return RecordError(reason, field=field)
        except RecordError as error:
            return error

    def _refuse_if_none_is_valid(self, file: Path, first: Rejected) -> None:
        count = 0
        for index, record in enumerate(stream_records(file)):
            entry = _Entry(index=index, record=self._typed(record), number=None, key=None, first=index)
            if not isinstance(self._parsed(entry), RecordError):
                return
            count += 1
        raise DataError(f"{file}: none of {count} records is valid; {first.text}")

    def _typed(self, record: Any) -> Any:
        """A record whose id is a number. In a table all values are texts."""
        if isinstance(record, Row) and re.fullmatch(r"\d{1,19}", str(record.get(self.id_field, "")).strip()):
            return Row(record | {self.id_field: int(record[self.id_field])})
        return record

    def record_id(self, index: int, record: Any) -> int | None:
        """The record's id, by which `case_ids` selects it. None if it has none; then `parse` raises."""
        number = whole_number(record.get(self.id_field)) if isinstance(record, dict) else None
        return number if type(number) is int else None

    def record_key(self, index: int, record: Any) -> Hashable:
        """What no other record of the file may have. None if nothing is asked of it. It is the id, unless a data set
        gives ids to its records."""
        return self.record_id(index, record)

    @abstractmethod
    def parse(self, index: int, record: Any) -> T:
        """Turn the raw record at position `index` of the file into an item.

        Raises:
            ValidationError: a field is missing or of a wrong type.
            RecordError: the record is invalid for another reason.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """A record in its file: its id, what tells it from others, and the first position where that stands."""

    index: int
    record: Any
    number: int | None
    key: Hashable
    first: int


class _Entries(Iterable[_Entry]):
    """The records of a file, one by one."""

    def __init__(self, data: RecordFile[Any], file: Path) -> None:
        self._data, self._file = data, file

    def __iter__(self) -> Iterator[_Entry]:
        first_index: dict[Hashable, int] = {}
        for index, raw in enumerate(stream_records(self._file)):
            record = self._data._typed(raw)
            key = self._data.record_key(index, record)
            first = index if key is None else first_index.setdefault(key, index)
            yield _Entry(index=index, record=record, number=self._data.record_id(index, record), key=key, first=first)


def _reject(file: Path, index: int, field: str, reason: str) -> Rejected:
    return Rejected(file=str(file), index=index, field=field, reason=reason)
