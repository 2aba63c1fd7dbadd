"""The TF-IDF vectorizer of the reference score (docs/method.md §1.4), through scikit-learn's public interface."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from romexp.data.download import RemoteFile, locate
from romexp.data.published import TFIDF_IDF, TFIDF_VOCABULARY
from romexp.data.snippets import Snippet, SnippetKey
from romexp.errors import ConfigError, DataError
from romexp.files import read_json, replacing, write_text
from romexp.unpacked import check_array

INSTEAD = (
    "set references.tfidf.idf_path and references.tfidf.vocabulary_path to copies of both files, "
    "references.tfidf.fit=true, or references=none to go on without"
)
"""What to do where a file cannot be downloaded."""

if TYPE_CHECKING:  # importing scikit-learn takes a second, and a run without generated texts does not need it
    from sklearn.feature_extraction.text import TfidfVectorizer


@dataclass(frozen=True, kw_only=True)
class TfIdf:
    """The source of the inverse document frequencies (idf): two files, local or published, or a fit on all snippets.

    The vectorizer has scikit-learn's defaults: lower-case words of two or more word characters, counts × idf, L2 norm.
    A failed download is an error. The authors' code silently fits then, which `fit=true` asks for here.

    Attributes:
        idf_path: a local `idf.npy`, float64 (terms); None takes the published one.
        vocabulary_path: a local `tfidf_vocab.json`, which maps terms to columns; None takes the published one.
        fit: fit on the snippets instead of reading files.
        cache_dir: where downloads are kept; None takes `$ROMEXP_CACHE`, or else ~/.cache/romexp.
        idf_remote: the published idf.
        vocabulary_remote: the published vocabulary.
    """

    idf_path: str | os.PathLike[str] | None = None
    vocabulary_path: str | os.PathLike[str] | None = None
    fit: bool = False
    cache_dir: str | os.PathLike[str] | None = None
    idf_remote: RemoteFile = TFIDF_IDF
    vocabulary_remote: RemoteFile = TFIDF_VOCABULARY

    def __post_init__(self) -> None:
        if (self.idf_path is None) != (self.vocabulary_path is None):
            raise ConfigError("idf_path, vocabulary_path: they belong together, set both or neither")
        if self.fit and self.idf_path is not None:
            raise ConfigError("fit: set either fit=true or the two paths")

    def files(self) -> tuple[Path, ...]:
        """The idf file and the vocabulary file, which are downloaded if necessary. Empty with `fit`.

        Raises:
            DataError: a file is missing, or the download fails.
        """
        if self.fit:
            return ()
        idf = locate(self.idf_path, self.idf_remote, self.cache_dir, instead=INSTEAD)
        return idf, locate(self.vocabulary_path, self.vocabulary_remote, self.cache_dir, instead=INSTEAD)

    def load(self, snippets: Mapping[SnippetKey, Iterable[Snippet]] | None = None) -> TfidfVectorizer:
        """The vectorizer, ready to `transform`.

        Args:
            snippets: all snippets. They are read only if `fit` is set.

        Raises:
            DataError: a file is missing or of another format, or `fit` is set and `snippets` are not all snippets.
        """
        if self.fit:
            return _fitted(snippets)
        idf_file, vocabulary_file = self.files()
        return _restored(_read_vocabulary(vocabulary_file), _read_idf(idf_file), idf_file, vocabulary_file)


def save_statistics(vectorizer: TfidfVectorizer, *, idf_path: Path, vocabulary_path: Path) -> None:
    """Write a fitted vectorizer as the two files that `TfIdf` reads."""
    with replacing(idf_path) as part, part.open("wb") as file:
        np.save(file, np.asarray(vectorizer.idf_, dtype=np.float64), allow_pickle=False)
    columns = {term: int(column) for term, column in sorted(vectorizer.vocabulary_.items())}
    write_text(vocabulary_path, json.dumps(columns, ensure_ascii=False))


def _fitted(snippets: Mapping[SnippetKey, Iterable[Snippet]] | None) -> TfidfVectorizer:
    # The keys that are loaded depend on `limit`. If idf were fitted on some keys only, RS would depend on `limit` too.
    if not snippets or not getattr(snippets, "complete", True):
        raise DataError("TF-IDF with fit=true needs all snippets of the file, but not all of them were loaded")
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer().fit(snippet.text for samples in snippets.values() for snippet in samples)


def _restored(vocabulary: dict[str, int], idf: np.ndarray, idf_file: Path, vocabulary_file: Path) -> TfidfVectorizer:
    if len(vocabulary) != len(idf):
        raise DataError(f"{idf_file} has {len(idf)} entries, {vocabulary_file} has {len(vocabulary)} terms")
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(vocabulary=vocabulary)
    try:
        vectorizer.idf_ = idf
    except ValueError as error:  # scikit-learn refuses a vocabulary whose columns repeat or leave gaps
        raise DataError(f"{vocabulary_file}: {error}") from error
    return vectorizer


def _read_idf(file: Path) -> np.ndarray:
    try:
        with file.open("rb") as stream:
            check_array(file, stream, file.stat().st_size)
        idf = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: not a NumPy array file ({error})") from error
    if not isinstance(idf, np.ndarray) or idf.ndim != 1 or idf.dtype.kind != "f" or not np.isfinite(idf).all():
        raise DataError(f"{file}: expected an array with one row of finite numbers")
    return idf.astype(np.float64)


def _read_vocabulary(file: Path) -> dict[str, int]:
    try:
        vocabulary = read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a JSON file ({error})") from error
    if not isinstance(vocabulary, dict) or not all(type(column) is int for column in vocabulary.values()):
        raise DataError(f"{file}: expected a JSON object that maps terms to columns")
    return vocabulary
