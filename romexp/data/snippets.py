"""Attribute snippets: the reference texts of RS, grouped by relation and target (docs/method.md §1.4)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ValidationError

from romexp.data.dataset import Rejected
from romexp.data.download import FileSource, RemoteFile
from romexp.data.json_array import stream_array
from romexp.data.published import ATTRIBUTE_SNIPPETS
from romexp.data.schema import RawRecord, explain
from romexp.errors import DataError
from romexp.files import file_sha256

SnippetKey = tuple[str, str]
"""(relation_id, target_id)."""


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """One text about the subject `name`."""

    name: str
    text: str


class _RawSample(RawRecord):
    text: str
    name: str = ""


class _RawEntry(RawRecord):
    relation_id: str
    target_id: str
    samples: list[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class SnippetTable(Mapping[SnippetKey, tuple[Snippet, ...]]):
    """Snippets by (relation, target), in file order. Only keys with at least one snippet are present.

    Attributes:
        samples: the snippets of each key.
        complete: whether all keys of the file were loaded. Fitting TF-IDF needs all of them.
        rejected: entries that were set aside, and single samples of an entry (with a field like `samples[3].text`).
        name: short name of the source.
        path: the file that was read.
        sha256: digest of the whole file.
    """

    samples: Mapping[SnippetKey, tuple[Snippet, ...]]
    complete: bool
    rejected: tuple[Rejected, ...]
    name: str
    path: str
    sha256: str

    def __getitem__(self, key: SnippetKey) -> tuple[Snippet, ...]:
        return self.samples[key]

    def __iter__(self) -> Iterator[SnippetKey]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True, kw_only=True)
class Snippets(FileSource):
    """A JSON list of {relation_id, target_id, samples: [{name, text}]}, as in `attribute_snippets.json` (926 MB).

    The file is read entry by entry, and only the texts of the requested keys are kept in memory. All texts take some
    2 GB, because Python stores a string with a character beyond Latin-1 in two or four bytes for each character.

    Attributes:
        name: short name in manifests.
    """

    instead: ClassVar[str] = "set references.snippets.path to a copy of the file, or references=none to go on without"
    name: str = "attribute_snippets"
    remote: RemoteFile | None = ATTRIBUTE_SNIPPETS

    def load(self, needed: Collection[SnippetKey] | None = None) -> SnippetTable:
        """Read the snippets of the keys in `needed`, or all if it is None.

        Several entries of one key are joined. Entries of other keys are skipped and not validated.

        Raises:
            DataError: the file is missing or not a JSON list, or none of its entries is valid.
        """
        file = self.locate()
        wanted = None if needed is None else set(needed)
        kept: dict[SnippetKey, list[Snippet]] = {}
        rejected: list[Rejected] = []
        usable = 0
        for index, record in enumerate(stream_array(file)):
            if wanted is not None and (key := _key(record)) is not None and key not in wanted:
                usable += 1
                continue
            try:
                entry = _RawEntry.model_validate(record)
            except ValidationError as error:
                field, reason = explain(error)
                rejected.append(Rejected(file=str(file), index=index, field=field, reason=reason))
                continue
            usable += 1
            if samples := _samples(entry, str(file), index, rejected):
                kept.setdefault((entry.relation_id, entry.target_id), []).extend(samples)
        if rejected and not usable:
            raise DataError(f"{file}: none of {len(rejected)} entries is valid; {rejected[0].text}")
        return SnippetTable(
            samples={key: tuple(samples) for key, samples in kept.items()},
            complete=wanted is None,
            rejected=tuple(rejected),
            name=self.name,
            path=str(file),
            sha256=file_sha256(file),
        )


def _key(record: Any) -> SnippetKey | None:
    """The entry's key. None if it has no valid one; then validation gives the reason."""
    if not isinstance(record, dict):
        return None
    relation, target = record.get("relation_id"), record.get("target_id")
    return (relation, target) if isinstance(relation, str) and isinstance(target, str) else None


def _samples(entry: _RawEntry, file: str, index: int, rejected: list[Rejected]) -> list[Snippet]:
    """The entry's valid samples. Each invalid one is added to `rejected`, so that the key keeps its other texts."""
    samples = []
    for number, raw in enumerate(entry.samples):
        try:
            sample = _RawSample.model_validate(raw)
        except ValidationError as error:
            field, reason = explain(error)
            rejected.append(Rejected(file=file, index=index, field=f"samples[{number}].{field}", reason=reason))
        else:
            samples.append(Snippet(name=sample.name, text=sample.text))
    return samples
