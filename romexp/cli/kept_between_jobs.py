"""Keeps one loaded model and the reference texts of one source for the next job of the same process.

So a sweep over layers or editors reads the weights once. CounterFact's reference texts are 926 MB of JSON; to recognize
a finished run only their digests are needed, which are stored in the cache folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from romexp.files import Stamp, read_json, stamp, write_text
from romexp.results.identity import digest

if TYPE_CHECKING:  # importing scikit-learn and torch takes seconds
    from romexp.data.snippets import SnippetKey
    from romexp.facts import Case
    from romexp.lm.model import LanguageModel, PretrainedModel
    from romexp.references import LoadedReferences, ReferenceSource


Key = tuple[Any, ...]


class LoadedModels:
    """Holds at most one model. Two requests are for the same one if every field of `PretrainedModel` is equal and the
    files of a local folder have not changed.

    Jobs restore a model's weights (`romexp.lm.apply_delta.applied`), so the next job may use it.
    """

    def __init__(self) -> None:
        self._held: tuple[Key, LanguageModel] | None = None

    def load(self, model: PretrainedModel, *, digests: Path | None = None) -> LanguageModel:
        """Return the held model if it is the requested one; otherwise release it and load the requested one.

        Args:
            digests: folder in which models' digests are kept (`romexp.lm.kept_digest`); None keeps none.

        Raises:
            ConfigError: see `PretrainedModel.load`.
        """
        key = (model, _file_stamps(model.path))
        if self._held is not None and self._held[0] == key:
            return self._held[1]
        self.forget()
        if digests is None:
            lm = model.load()
        else:
            from romexp.lm.kept_digest import load_with_digest

            lm = load_with_digest(model, digests)
        self._held = (key, lm)
        return lm

    def forget(self) -> None:
        """Release the model, because another one is needed or because a failed job may have left it changed."""
        self._held = None

    def __reduce__(self) -> tuple[type[LoadedModels], tuple[()]]:
        """Weights are not sent to worker processes: a copy there begins empty."""
        return (LoadedModels, ())


def _file_stamps(path: str | Path) -> tuple[tuple[str, Stamp], ...]:
    """Name and stamp of a file or of each file of a folder; empty if `path` is the id of a model on the hub."""
    folder = Path(path).expanduser()
    if folder.is_file():
        return ((folder.name, stamp(folder)),)
    if not folder.is_dir():
        return ()
    return tuple((file.name, stamp(file)) for file in sorted(folder.iterdir()) if file.is_file())


@dataclass(frozen=True)
class _Key:
    """What the texts depend on: how they are read, and the path and stamp of each file."""

    source: ReferenceSource
    files: tuple[tuple[str, Stamp], ...]

    @classmethod
    def of(cls, source: ReferenceSource) -> _Key:
        return cls(source, tuple((os.path.realpath(file), stamp(file)) for file in source.files()))

    def digest_file(self, cache_dir: Path) -> Path:
        """The file in which the digests are stored."""
        # scikit-learn's version matters: it may have computed the document frequencies, one of the digests.
        contents = [repr(self.source), self.files, version("scikit-learn")]
        return cache_dir / "references" / f"{digest(contents)}.json"


class KeptReferences:
    """Holds the texts of at most one source, and stores their digests in `<cache_dir>/references`.

    The held texts are used again if the source has equal fields, none of its files has changed, and the texts of all
    requested cases are among them. Jobs do not change them.
    """

    def __init__(self) -> None:
        self._held: tuple[_Key, frozenset[SnippetKey], LoadedReferences] | None = None

    def note(self, source: ReferenceSource, *, cache_dir: Path) -> Path | None:
        """The file in which the digests of these texts are stored; None if the source has no files."""
        key = _Key.of(source)
        return key.digest_file(cache_dir) if key.files else None

    def digests(self, source: ReferenceSource, cases: Sequence[Case], *, cache_dir: Path) -> Mapping[str, Any]:
        """What identifies the texts. If the digests of these files are not stored yet, the texts are read.

        Raises:
            DataError: see `load`.
        """
        key = _Key.of(source)
        if not key.files:
            return source.load(frozenset()).digests
        return _read_digests(key.digest_file(cache_dir)) or self.load(source, cases, cache_dir=cache_dir).digests

    def load(self, source: ReferenceSource, cases: Sequence[Case], *, cache_dir: Path) -> LoadedReferences:
        """The texts for these cases; files are read only if the held texts lack some.

        Raises:
            DataError: a file is missing, cannot be downloaded, or is not what is expected.
        """
        key, needed = _Key.of(source), source.needed(cases)
        if self._held is not None and self._held[0] == key and needed <= self._held[1]:
            return self._held[2]
        self._held = None  # released before other texts are read, since they may take gigabytes
        loaded = source.load(needed)
        if key.files:
            write_text(key.digest_file(cache_dir), json.dumps(dict(loaded.digests)) + "\n")
            self._held = (key, needed, loaded)
        return loaded

    def __reduce__(self) -> tuple[type[KeptReferences], tuple[()]]:
        """Texts are not sent to worker processes: a copy there begins empty."""
        return (KeptReferences, ())


def _read_digests(file: Path) -> Mapping[str, Any] | None:
    """The stored digests; None if the file is missing or damaged, and then the texts are read again."""
    try:
        digests = read_json(file)
    except (OSError, ValueError):
        return None
    is_right = isinstance(digests, dict) and all(isinstance(value, str) and value for value in digests.values())
    return digests if is_right and digests else None
