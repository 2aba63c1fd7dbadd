"""The TF-IDF vectorizer of the reference score (docs/method.md §1.4), through scikit-learn's public interface."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from romexp.data.download import RemoteFile, locate
from romexp.data.published import TFIDF_IDF, TFIDF_VOCABULARY
from romexp.data.snippets import Snippet, SnippetKey
from romexp.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class TfIdf:
    """Where the inverse document frequencies come from: two files (local or published), or a fit on all snippets.

    Lower-case words of two or more word characters, raw counts × idf, L2 norm: scikit-learn's defaults.
    Unlike the reference, a failed download is an error, not a silent fit: say `fit=true` for that.

    Attributes:
        idf_path: local `idf.npy`, float64 [terms]; None takes the published one.
        vocabulary_path: local `tfidf_vocab.json`, term → column; None takes the published one.
        fit: fit on the snippets instead of reading files.
        cache_dir: where downloads are kept; None is `$ROMEXP_CACHE`, else ~/.cache/romexp.
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
        """The file of idf and that of the vocabulary, downloaded if need be; none with `fit`.

        Raises:
            DataError: a file is missing, or the download fails.
        """
        if self.fit:
            return ()
        idf = locate(self.idf_path, self.idf_remote, self.cache_dir)
        return idf, locate(self.vocabulary_path, self.vocabulary_remote, self.cache_dir)

    def load(self, snippets: Mapping[SnippetKey, Iterable[Snippet]] | None = None) -> TfidfVectorizer:
        """The vectorizer, ready to `transform`.

        Args:
            snippets: all of them; read only for `fit`.

        Raises:
            DataError: a file is missing or not what is expected, or `fit` has not got all snippets.
        """
        if self.fit:
            return _fitted(snippets)
        idf_file, vocabulary_file = self.files()
        return _restored(_read_vocabulary(vocabulary_file), _read_idf(idf_file), idf_file, vocabulary_file)


def save_statistics(vectorizer: TfidfVectorizer, *, idf_path: Path, vocabulary_path: Path) -> None:
    """Write a fitted vectorizer as the two files that `TfIdf` reads."""
    np.save(idf_path, np.asarray(vectorizer.idf_, dtype=np.float64), allow_pickle=False)
    columns = {term: int(column) for term, column in sorted(vectorizer.vocabulary_.items())}
    vocabulary_path.write_text(json.dumps(columns, ensure_ascii=False), encoding="utf-8")


def _fitted(snippets: Mapping[SnippetKey, Iterable[Snippet]] | None) -> TfidfVectorizer:
    # A table of some keys only would give other frequencies than the whole, and RS would depend on `limit`.
    if not snippets or not getattr(snippets, "complete", True):
        raise DataError("TF-IDF with fit=true needs all snippets of the file, loaded without a choice of keys")
    return TfidfVectorizer().fit(snippet.text for samples in snippets.values() for snippet in samples)


def _restored(vocabulary: dict[str, int], idf: np.ndarray, idf_file: Path, vocabulary_file: Path) -> TfidfVectorizer:
    if len(vocabulary) != len(idf):
        raise DataError(f"{idf_file} has {len(idf)} entries, {vocabulary_file} has {len(vocabulary)} terms")
    vectorizer = TfidfVectorizer(vocabulary=vocabulary)
    try:
        vectorizer.idf_ = idf
    except ValueError as error:  # columns that repeat or leave gaps
        raise DataError(f"{vocabulary_file}: {error}") from error
    return vectorizer


def _read_idf(file: Path) -> np.ndarray:
    try:
        idf = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: not a NumPy array file ({error})") from error
    if not isinstance(idf, np.ndarray) or idf.ndim != 1 or idf.dtype.kind != "f" or not np.isfinite(idf).all():
        raise DataError(f"{file}: expected one row of finite numbers")
    return idf.astype(np.float64)


def _read_vocabulary(file: Path) -> dict[str, int]:
    try:
        vocabulary = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a JSON file ({error})") from error
    if not isinstance(vocabulary, dict) or not all(type(column) is int for column in vocabulary.values()):
        raise DataError(f"{file}: expected an object of term → column")
    return vocabulary
