"""Text corpora for second moments and training: local files, and data sets of the Hugging Face hub.

Every corpus has three members:
- `texts()` iterates over the texts in the corpus's own order;
- `load()` returns the texts, as a sequence if that is possible;
- `provenance` identifies the texts, so that statistics can be cached by it. It needs no network, and does not depend
  on paths of this machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from romexp.data.text_files import COLUMNS, LINES, PLAIN, Unit, best_unit, check_column, read_texts, text_of
from romexp.errors import ConfigError, DataError
from romexp.files import file_sha256
from romexp.hub import HubUnreachable, hub_access
from romexp.redact import without_secrets, without_secrets_in
from romexp.unpacked import check_gzip, check_zip

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TextCorpus:
    """Local files. `load()` holds all texts in memory. For larger files use `HfCorpus(path="json", …)`.

    Attributes:
        path: a .txt, .jsonl (both also .gz) or .parquet file, or a folder of them, which are read in order of name.
        field: the JSON field or Parquet column that holds the text.
        unit: what one text of a .txt file is: a `line`, a `paragraph` (it ends at an empty line), or the whole `file`.
            `auto` takes paragraphs if all .txt files together have at least 10 of them with at most 4,000 characters
            on average, else lines. One JSON line or one row of a Parquet file is always one text.
    """

    path: str | os.PathLike[str]
    field: str = "text"
    unit: Unit | Literal["auto"] = "auto"

    def texts(self) -> Iterator[str]:
        """Every text that is not blank, file by file.

        Raises:
            DataError: a file is missing, not UTF-8, or of an unknown type; a line is not JSON; the field or column is
                missing or not text. It is never a `RecordError` (see `romexp.data.text_files`).
        """
        for file in self.files:
            yield from read_texts(file, field=self.field, unit=self.chosen_unit)

    def load(self) -> Sequence[str]:
        return tuple(self.texts())

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files to read.

        Raises:
            ConfigError: `unit` is unknown.
            DataError: there is no file, or it is of an unknown type.
        """
        if self.unit not in ("auto", "line", "paragraph", "file"):
            raise ConfigError(f"corpus.unit: {self.unit!r}, expected auto, line, paragraph or file")
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
    def chosen_unit(self) -> Unit:
        """`unit`, or for `auto` what suits the .txt files best.

        Raises:
            ConfigError: `unit` is unknown.
            DataError: a file is missing, not UTF-8, or of an unknown type.
        """
        plain = [file for file in self.files if file.name.endswith(PLAIN)]
        if self.unit != "auto":
            return self.unit
        unit, paragraphs = best_unit(plain)
        if plain:
            found = f"{paragraphs} paragraph{'' if paragraphs == 1 else 's'}"
            _log.info("%s has %s: each %s is one text (corpus.unit=auto)", self.path, found, unit)
        return unit

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """The corpus's name, a digest of the contents of all files, and how the files are split into texts.

        It holds the unit that was chosen and never `auto`: the same texts have the same provenance.
        """
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(bytes.fromhex(file_sha256(file)))
        splitting: dict[str, str] = (
            {"unit": self.chosen_unit} if any(f.name.endswith(PLAIN) for f in self.files) else {}
        )
        if any(f.name.endswith(LINES + COLUMNS) for f in self.files):
            splitting["field"] = self.field
        return {"kind": "files", "name": Path(self.path).name, "sha256": digest.hexdigest(), **splitting}


@dataclass(frozen=True, kw_only=True)
class TextList:
    """Texts that Python code has in memory already."""

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
    """A data set that the `datasets` library reads, from the hub or from local files.

    The authors used `wikipedia`, 20200501.en. It needs a loading script, which `datasets` no longer runs. The closest
    data set on the hub is `wikimedia/wikipedia`, 20231101.en (docs/method.md §3.3).

    Attributes:
        path: id on the hub; or `json`, `parquet`, `text`, … if `data_files` is set.
        name: the data set's configuration, for example `20231101.en`.
        split: the split of the data set.
        field: the column that holds the text.
        revision: branch, tag or commit on the hub. With None or a branch, a later change of the data set on the hub
            changes the texts. With a commit it does not.
        data_files: local files for `json`, `parquet` or `text`.
        streaming: read texts over the network and do not download the whole data set. A sample is then the first texts
            of the data set and not a random choice.
        cache_dir: where `datasets` keeps downloads; None takes its default.
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
        """The texts, as a sequence that reads each from disk when it is asked for. If streaming, only an iterable.

        Raises:
            DataError: the hub has no such data set, configuration, split or column; or there is no network and the data
                set is not in the cache. Reading raises a `DataError`, never a `RecordError`, where a row has no text.
        """
        import datasets  # This import is slow, and most runs do not need it.

        data_files = _builtin(self.data_files)
        _check_archives(data_files)
        is_local = data_files is not None or Path(self.path).exists()
        try:
            with nullcontext() if is_local else hub_access():
                rows = datasets.load_dataset(
                    self.path,
                    self.name,
                    split=self.split,
                    revision=self.revision,
                    data_files=data_files,
                    streaming=self.streaming,
                    cache_dir=None if self.cache_dir is None else str(self.cache_dir),
                )
        except Exception as error:  # `datasets` raises a dozen types of its own and of the libraries that it uses.
            raise self._unreadable(error) from error
        if rows.column_names is not None:
            check_column(rows.column_names, self.field, f"data set {self._label}")
        return self._streamed(rows) if self.streaming else _Column(rows, self.field, self._label)

    def _streamed(self, rows: Iterable[Any]) -> Iterator[str]:
        following = enumerate(rows)
        while True:
            try:
                index, row = next(following)
            except StopIteration:
                return
            except Exception as error:  # As above; here the network may fail.
                raise self._unreadable(error) from error
            yield text_of(row, self.field, f"data set {self._label}, record {index}")

    def _unreadable(self, error: Exception) -> DataError:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = f"it is not in the cache, and {lines[0]}" if isinstance(error, HubUnreachable) else lines[0]
        return DataError(
            without_secrets(
                f"corpus: cannot load data set {self._label}: {reason}; without a network set covariance=text "
                "covariance.corpus.path=<your texts>, or covariance=sampled"
            )
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """The fields that decide the texts. Local `data_files` are given by their digests and not by their paths."""
        fields = {name: getattr(self, name) for name in ("path", "name", "split", "field", "revision", "streaming")}
        return without_secrets_in({"kind": "datasets", **fields, "data_files": _digests(_builtin(self.data_files))})

    @property
    def _label(self) -> str:
        return " ".join(part for part in (self.path, self.name, f"[{self.split}]") if part)


class _Column(Sequence[str]):
    """One text column of a `datasets.Dataset`. Each item is read from disk when it is asked for."""

    def __init__(self, rows: Any, field: str, label: str) -> None:
        self._rows, self._field, self._label = rows.select_columns([field]), field, label

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return text_of(self._rows[index], self._field, f"data set {self._label}, record {index}")


def _builtin(data_files: Any) -> Any:
    """Convert file names to built-in dicts, lists and strings. A configuration may hold them in OmegaConf's types."""
    if data_files is None or isinstance(data_files, str | os.PathLike):
        return None if data_files is None else str(Path(data_files).expanduser())
    if hasattr(data_files, "items"):
        return {str(key): _builtin(value) for key, value in data_files.items()}
    return [_builtin(item) for item in data_files]


def _check_archives(data_files: Any) -> None:
    """Refuse local archives, which `datasets` unpacks onto the disk, that would unpack to far more than they are.

    Raises:
        DataError: see `romexp.unpacked.check_unpacked_size`.
    """
    if isinstance(data_files, dict | list):
        for inner in data_files.values() if isinstance(data_files, dict) else data_files:
            _check_archives(inner)
    elif data_files and (file := Path(data_files)).is_file():
        check_gzip(file) if file.name.endswith(".gz") else check_zip(file)


def _digests(data_files: Any) -> Any:
    if isinstance(data_files, dict):
        return {key: _digests(value) for key, value in data_files.items()}
    if isinstance(data_files, list):
        return [_digests(value) for value in data_files]
    return file_sha256(Path(data_files)) if data_files and Path(data_files).is_file() else data_files
