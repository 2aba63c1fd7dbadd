"""What a process keeps from job to job: one loaded model, and the reference texts of one source.

A sweep over layers or editors reads the weights once. CounterFact's reference texts are 926 MB of JSON; a finished run
needs their digests alone, which are noted in the cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from romexp.errors import DataError
from romexp.files import write_text
from romexp.results.identity import digest

if TYPE_CHECKING:  # scikit-learn and torch take seconds, and the command line imports this file
    from romexp.data.snippets import SnippetKey
    from romexp.facts import Case
    from romexp.lm.model import LanguageModel, PretrainedModel
    from romexp.references import LoadedReferences, ReferenceSource


Key = tuple[Any, ...]
Stamp = tuple[int, int]
"""Size in bytes and time of change in ns: a file of the same stamp is taken to be the same."""


class LoadedModels:
    """Holds at most one model. Two requests are for the same one if every field of `PretrainedModel` is equal and the
    files of a local folder have not changed.

    Jobs leave a model's weights as they were (`romexp.lm.apply_delta.applied`), so the next job may have it.
    """

    def __init__(self) -> None:
        self._held: tuple[Key, LanguageModel] | None = None

    def load(self, model: PretrainedModel) -> LanguageModel:
        """The model that is held, if it is this one; else load it, after letting go of the other.

        Raises:
            ConfigError: as `PretrainedModel.load`.
        """
        key = (model, _files(model.path))
        if self._held is not None and self._held[0] == key:
            return self._held[1]
        self.forget()
        lm = model.load()
        self._held = (key, lm)
        return lm

    def forget(self) -> None:
        """Let go of the model: another is needed, or a job failed and may have left it changed."""
        self._held = None

    def __reduce__(self) -> tuple[type[LoadedModels], tuple[()]]:
        """Weights do not travel to worker processes: they begin with nothing held."""
        return (LoadedModels, ())


def stamp(file: Path) -> Stamp:
    """Of a file that is there."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _files(path: str | Path) -> tuple[tuple[str, Stamp], ...]:
    """Name and stamp of each file of a local folder; nothing for a hub id."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return ()
    return tuple((file.name, stamp(file)) for file in sorted(folder.iterdir()) if file.is_file())


@dataclass(frozen=True)
class _Key:
    """What texts depend on: how they are read, and the files by name, size and time of change."""

    source: ReferenceSource
    files: tuple[tuple[str, Stamp], ...]

    @classmethod
    def of(cls, source: ReferenceSource) -> _Key:
        return cls(source, tuple((os.path.realpath(file), stamp(file)) for file in source.files()))

    def note(self, cache_dir: Path) -> Path:
        """Where the digests are noted."""
        import sklearn  # fits the frequencies that one of the digests is of, where they are not read

        said = [repr(self.source), self.files, sklearn.__version__]
        return cache_dir / "references" / f"{digest(said)}.json"


class KeptReferences:
    """Holds the texts of at most one source, and notes digests in `<cache_dir>/references`.

    Texts are for the same job if their source has equal fields, none of its files has changed, and no case asks for
    others. Jobs do not change them.
    """

    def __init__(self) -> None:
        self._held: tuple[_Key, frozenset[SnippetKey], LoadedReferences] | None = None

    def digests(self, source: ReferenceSource, cases: Sequence[Case], *, cache_dir: Path) -> Mapping[str, Any]:
        """What identifies the texts: as noted when these files were last read, else they are read.

        Raises:
            DataError: as `load`.
        """
        key = _Key.of(source)
        if not key.files:
            return source.load(frozenset()).digests
        return _noted(key.note(cache_dir)) or self.load(source, cases, cache_dir=cache_dir).digests

    def load(self, source: ReferenceSource, cases: Sequence[Case], *, cache_dir: Path) -> LoadedReferences:
        """The texts for these cases: those that are held, if they will do.

        Raises:
            DataError: a file is missing, cannot be downloaded, or is not what is expected.
        """
        key, needed = _Key.of(source), source.needed(cases)
        if self._held is not None and self._held[0] == key and needed <= self._held[1]:
            return self._held[2]
        self._held = None  # before others are read: they may be gigabytes
        loaded = source.load(needed)
        if key.files:
            _write(key.note(cache_dir), loaded.digests)
            self._held = (key, needed, loaded)
        return loaded

    def __reduce__(self) -> tuple[type[KeptReferences], tuple[()]]:
        """Texts do not travel to worker processes: they begin with nothing held."""
        return (KeptReferences, ())


def _noted(file: Path) -> Mapping[str, Any] | None:
    """None where nothing is noted, or nothing that can be read: then the texts are read again."""
    try:
        digests = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return digests if isinstance(digests, dict) and digests else None


def _write(file: Path, digests: Mapping[str, Any]) -> None:
    try:
        write_text(file, json.dumps(digests) + "\n")
    except OSError as error:
        raise DataError(f"cache_dir: cannot write {file}: {error.strerror or error}") from error
