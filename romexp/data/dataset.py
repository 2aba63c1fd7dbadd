"""What the record data sets share: find the file, choose records, validate, set bad ones aside."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ValidationError

from romexp.data.download import FileSource
from romexp.data.json_array import stream_array
from romexp.data.schema import explain
from romexp.data.selection import Selection
from romexp.errors import DataError, RecordError
from romexp.files import file_sha256

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A record that was set aside (counted and named in the run's manifest, docs/method.md §11).

    Attributes:
        file: the file it stands in.
        index: its position in that file, from 0.
        field: the field at fault, as `requested_rewrite.target_new.str` or `paraphrase_prompts[1]`.
        reason: what was expected.
    """

    file: str
    index: int
    field: str
    reason: str

    @property
    def text(self) -> str:
        """All but the file, for a message that has named it."""
        return f"record {self.index}, field {self.field}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Loaded(Generic[T]):
    """The selected part of a data set.

    Attributes:
        items: valid records in file order.
        rejected: selected records that were set aside, in file order.
        name: the data set's short name.
        path: the file that was read.
        sha256: of that whole file, whatever part was selected.
    """

    items: tuple[T, ...]
    rejected: tuple[Rejected, ...]
    name: str
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RecordFile(Selection, FileSource, Generic[T]):
    """A JSON list of records. Config fields: those of `FileSource` and `Selection`, and

    Attributes:
        name: short name in folders and tables.
    """

    name: str = ""
    id_field: ClassVar[str] = "case_id"

    def load(self) -> Loaded[T]:
        """Read and validate the selected records.

        A record's id may stand in the file once: later copies are set aside, whatever part is selected.

        Raises:
            DataError: the file is missing or not a JSON list, the selection asks for what is not there, or no record
                of the whole file is valid (a shard may come out empty; the wrong file should not pass for one).
        """
        file = self.locate()
        records = list(stream_array(file))
        ids = [self.record_id(index, record) for index, record in enumerate(records)]
        first = {number: index for index, number in reversed(list(enumerate(ids))) if number is not None}
        items: list[T] = []
        rejected: list[Rejected] = []
        for index in self.positions(ids, file=str(file)):
            number = ids[index]
            try:
                if number is not None and first[number] != index:
                    raise RecordError(f"id {number} is already that of record {first[number]}", field=self.id_field)
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
        """The record's id for `case_ids`; None if it has none (`parse` then says so)."""
        number = record.get(self.id_field) if isinstance(record, dict) else None
        return number if type(number) is int else None

    @abstractmethod
    def parse(self, index: int, record: Any) -> T:
        """Turn the raw record at `index` into its type.

        Raises:
            ValidationError, RecordError: it is bad.
        """


def _reject(file: Path, index: int, field: str, reason: str) -> Rejected:
    return Rejected(file=str(file), index=index, field=field, reason=reason)
