"""What a data set loads to: the good records, and those set aside with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A record that was set aside (counted and named in the run's manifest, DESIGN §5).

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
