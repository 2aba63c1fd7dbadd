"""Text corpora for second moments and training, as config objects: local files, and data sets of the Hugging Face hub.

All have `texts()` (one by one, in their own order), `load()` (indexable where possible) and `provenance` (what
identifies the texts, without a network and without paths of this machine; what statistics are cached by).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from romexp.errors import ConfigError, DataError, RecordError
from romexp.files import file_sha256

Unit = Literal["line", "paragraph", "file"]
PLAIN, LINES, COLUMNS = (".txt", ".txt.gz"), (".jsonl", ".jsonl.gz"), (".parquet",)
"""Endings of file names, by kind."""


@dataclass(frozen=True, kw_only=True)
class TextCorpus:
    """Local files. `load()` holds text and JSON lines in memory; larger ones go through `HfCorpus(path="json", …)`.

    Attributes:
        path: a .txt, .jsonl (both also .gz) or .parquet file, or a folder of them, read in the order of their names.
        field: where the text is in a JSON line or a Parquet file.
        unit: what one text is in a .txt file: a line, a paragraph (up to an empty line), or the file.
    """

    path: str | os.PathLike[str]
    field: str = "text"
    unit: Unit = "paragraph"

    def texts(self) -> Iterator[str]:
        """Every text that is not blank, file by file.

        Raises:
            DataError: a file is missing, not UTF-8, or of no known type.
            RecordError: a line is not JSON or lacks the field; the column is missing or not text.
        """
        for file in self.files:
            yield from read_texts(file, field=self.field, unit=self.unit)

    def load(self) -> Sequence[str]:
        return tuple(self.texts())

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files to read."""
        if self.unit not in ("line", "paragraph", "file"):
            raise ConfigError(f"corpus.unit: {self.unit!r}, expected line, paragraph or file")
        path = Path(self.path).expanduser()
        known = PLAIN + LINES + COLUMNS
        if path.is_file():
            if not path.name.endswith(known):
                raise DataError(f"{path}: unknown type of text file; expected one of {', '.join(known)}")
            return (path,)
        files = tuple(sorted(f for f in path.rglob("*") if f.is_file() and f.name.endswith(known)))
        if not files:
            what = f"no {', '.join(known)} in folder" if path.is_dir() else "no such file or folder:"
            raise DataError(f"corpus.path: {what} {path}")
        return files

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Name, digest of all files' content, and how they are cut into texts."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(bytes.fromhex(file_sha256(file)))
        how: dict[str, str] = {"unit": self.unit} if any(f.name.endswith(PLAIN) for f in self.files) else {}
        if any(f.name.endswith(LINES + COLUMNS) for f in self.files):
            how["field"] = self.field
        return {"kind": "files", "name": Path(self.path).name, "sha256": digest.hexdigest(), **how}


@dataclass(frozen=True, kw_only=True)
class TextList:
    """Texts that are there already, as from Python."""

    items: tuple[str, ...]

    def texts(self) -> Iterator[str]:
        """Every text that is not blank."""
        return (text for text in self.items if text.strip())

    def load(self) -> Sequence[str]:
        return tuple(self.texts())

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """A digest of the texts."""
        digest = hashlib.sha256(json.dumps(self.items, ensure_ascii=False).encode()).hexdigest()
        return {"kind": "list", "count": len(self.items), "sha256": digest}


@dataclass(frozen=True, kw_only=True)
class HfCorpus:
    """A data set read by the `datasets` library, from the hub or by one of its loaders of local files.

    The authors' `wikipedia` of 20200501 needs a loading script, which `datasets` no longer runs; the nearest that the
    hub has is `wikimedia/wikipedia`, 20231101.en (docs/method.md §3.3).

    Attributes:
        path: id on the hub, or `json`, `parquet`, `text`, … with `data_files`.
        name: the data set's configuration, as `20231101.en`.
        split: which part.
        field: column with the text.
        revision: branch, tag or commit on the hub. None follows changes of the data set unseen; a commit does not.
        data_files: local files for `json`, `parquet`, `text`.
        streaming: do not download the whole set: texts then come from its start instead of a shuffle.
        cache_dir: where `datasets` keeps it; None is its own choice.
    """

    path: str
    name: str | None = None
    split: str = "train"
    field: str = "text"
    revision: str | None = None
    data_files: Any = None
    streaming: bool = False
    cache_dir: str | os.PathLike[str] | None = None

    def texts(self) -> Iterator[str]:
        """Every text, in the data set's order."""
        return iter(self.load())

    def load(self) -> Iterable[str]:
        """The texts, indexable and read from disk one by one; when streaming, an iterable.

        Raises:
            DataError: no network and not in the cache, no such data set, configuration, split or column.
        """
        # Imported here: it takes longer than everything else in a run that does not need it.
        import datasets

        try:
            rows = datasets.load_dataset(
                self.path,
                self.name,
                split=self.split,
                revision=self.revision,
                data_files=_plain(self.data_files),
                streaming=self.streaming,
                cache_dir=None if self.cache_dir is None else str(self.cache_dir),
            )
        except Exception as error:  # the library raises a dozen types, its own and those of four others
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise DataError(
                f"corpus: cannot load data set {self._label}: {reason[0]} (without a network, use local text)"
            ) from error
        if rows.column_names is not None and self.field not in rows.column_names:
            raise DataError(
                f"corpus.field: data set {self._label} has no column {self.field!r}; "
                f"it has {', '.join(rows.column_names)}"
            )
        return (
            (text_of(row, self.field, self._label, i) for i, row in enumerate(rows))
            if self.streaming
            else _Column(rows, self.field, self._label)
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """The fields that choose texts. Digests of local `data_files` stand for their paths."""
        fields = {name: getattr(self, name) for name in ("path", "name", "split", "field", "revision", "streaming")}
        return {"kind": "datasets", **fields, "data_files": _digests(_plain(self.data_files))}

    @property
    def _label(self) -> str:
        return " ".join(part for part in (self.path, self.name, f"[{self.split}]") if part)


class _Column(Sequence[str]):
    """One text column of a `datasets.Dataset`, read from disk item by item."""

    def __init__(self, rows: Any, field: str, label: str) -> None:
        self._rows, self._field, self._label = rows.select_columns([field]), field, label

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return text_of(self._rows[index], self._field, self._label, index)


def _plain(data_files: Any) -> Any:
    """File names in dicts and lists of Python itself, whatever kinds a configuration holds them in."""
    if data_files is None or isinstance(data_files, str | os.PathLike):
        return None if data_files is None else str(Path(data_files).expanduser())
    if hasattr(data_files, "items"):
        return {str(key): _plain(value) for key, value in data_files.items()}
    return [_plain(item) for item in data_files]


def _digests(data_files: Any) -> Any:
    if isinstance(data_files, dict):
        return {key: _digests(value) for key, value in data_files.items()}
    if isinstance(data_files, list):
        return [_digests(value) for value in data_files]
    return file_sha256(Path(data_files)) if data_files and Path(data_files).is_file() else data_files


def read_texts(file: Path, *, field: str, unit: Unit) -> Iterator[str]:
    """Every text of a file that is not blank, in order.

    Args:
        field: where the text is in a JSON line or a Parquet file.
        unit: what one text is in a plain text file.

    Raises:
        DataError: the file cannot be read as what its name says.
        RecordError: a record lacks the field or has no text there; names file, record and field.
    """
    if file.name.endswith(COLUMNS):
        texts = _parquet(file, field)
    elif file.name.endswith(LINES):
        texts = _json_lines(file, field)
    else:
        texts = _plain_texts(file, unit)
    return (text for text in texts if text.strip())


def _lines(file: Path) -> Iterator[str]:
    try:
        with (gzip.open if file.name.endswith(".gz") else open)(file, "rt", encoding="utf-8") as lines:  # type: ignore[operator]
            yield from lines
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error})") from error


def _plain_texts(file: Path, unit: Unit) -> Iterator[str]:
    if unit == "file":
        yield "".join(_lines(file))
        return
    paragraph: list[str] = []
    for line in _lines(file):
        if unit == "line":
            yield line.rstrip("\r\n")
        elif line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "".join(paragraph).rstrip("\r\n")
            paragraph = []
    if paragraph:
        yield "".join(paragraph).rstrip("\r\n")


def _json_lines(file: Path, field: str) -> Iterator[str]:
    for index, line in enumerate(_lines(file)):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise RecordError(f"not JSON ({error})", file=str(file), index=index) from error
        yield text_of(record, field, str(file), index)


def _parquet(file: Path, field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            if field not in table.schema_arrow.names:
                raise RecordError(
                    f"no such column; it has {', '.join(table.schema_arrow.names)}", file=str(file), field=field
                )
            index = 0
            for batch in table.iter_batches(columns=[field]):
                for value in batch.column(0).to_pylist():
                    yield text_of({field: value}, field, str(file), index)
                    index += 1
    except pyarrow.ArrowException as error:
        raise DataError(f"{file}: not a readable Parquet file ({error})") from error


def text_of(record: Any, field: str, file: str, index: int) -> str:
    """The text in a record's field.

    Raises:
        RecordError: there is none.
    """
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise RecordError(f"expected text, got {type(text).__name__}", file=file, index=index, field=field)
    return text
