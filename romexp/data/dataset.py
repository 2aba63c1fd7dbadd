"""The base of all data sets of records: it finds the file, selects and validates records, and sets bad ones aside."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ValidationError

from romexp.data.download import FileSource
from romexp.data.json_array import stream_array
from romexp.data.schema import explain, shown
from romexp.data.selection import Selection
from romexp.errors import DataError, RecordError
from romexp.files import file_sha256

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
    """A JSON list of records. A subclass turns one raw record into an item by `parse`.

    Attributes, besides those of `FileSource` and `Selection`:
        name: short name in folders and tables.
        id_field: the field of a record that holds its id.
    """

    name: str = ""
    id_field: ClassVar[str] = "case_id"

    def load(self) -> Loaded[T]:
        """Read and validate the selected records.

        If several records of the file have the same id, only the first of them is valid, whatever part is selected.

        Raises:
            DataError: the file is missing or not a JSON list, or the selection asks for records that are not there, or
                no record of the whole file is valid. (A shard without a valid record is no error.)
        """
        file = self.locate()
        records = list(stream_array(file))
        ids = [self.record_id(index, record) for index, record in enumerate(records)]
        first_index = {number: index for index, number in reversed(list(enumerate(ids))) if number is not None}
        items: list[T] = []
        rejected: list[Rejected] = []
        for index in self.positions(ids, file=str(file)):
            number = ids[index]
            try:
                if number is not None and first_index[number] != index:
                    raise RecordError(
                        f"id {shown(number)} is already that of record {first_index[number]}", field=self.id_field
                    )
                items.append(self.parse(index, records[index]))
            except ValidationError as error:
                rejected.append(_reject(file, index, *explain(error)))
            except RecordError as error:
                rejected.append(_reject(file, index, error.field, error.reason))
        if rejected and not items and not any(self._valid(index, record) for index, record in enumerate(records)):
            raise DataError(f"{file}: none of {len(records)} records is valid; {rejected[0].text}")
        return Loaded(
            items=tuple(items), rejected=tuple(rejected), name=self.name, path=str(file), sha256=file_sha256(file)
        )

    def _valid(self, index: int, record: Any) -> bool:
        try:
            self.parse(index, record)
        except (ValidationError, RecordError):
            return False
        return True

    def record_id(self, index: int, record: Any) -> int | None:
        """The record's id, by which `case_ids` selects it. None if it has none; then `parse` raises."""
        number = record.get(self.id_field) if isinstance(record, dict) else None
        return number if type(number) is int else None

    @abstractmethod
    def parse(self, index: int, record: Any) -> T:
        """Turn the raw record at position `index` of the file into an item.

        Raises:
            ValidationError: a field is missing or of a wrong type.
            RecordError: the record is invalid for another reason.
        """


def _reject(file: Path, index: int, field: str, reason: str) -> Rejected:
    return Rejected(file=str(file), index=index, field=field, reason=reason)
