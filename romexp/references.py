"""Reference texts for the generation metrics, loaded from a data set for an evaluator (configuration group
`references`; docs/method.md §1.4, §5.4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from romexp.data.snippets import SnippetKey, Snippets
from romexp.data.tfidf import TfIdf
from romexp.evaluation.generation import References
from romexp.facts import Case


@dataclass(frozen=True, kw_only=True)
class LoadedReferences:
    """Loaded reference texts.

    Attributes:
        references: the texts and the vectorizer; None if there are none.
        digests: JSON-ready digests that identify them.
    """

    references: References | None
    digests: Mapping[str, Any]


class ReferenceSource(Protocol):
    """A source of reference texts (configuration group `references`)."""

    def files(self) -> Sequence[Path]:
        """All files on which the texts and their digests depend."""
        ...

    def needed(self, cases: Sequence[Case]) -> frozenset[SnippetKey]:
        """The keys of the texts that must be read for these cases."""
        ...

    def load(self, needed: frozenset[SnippetKey]) -> LoadedReferences:
        """Load the texts with these keys. The digests are those of the whole files."""
        ...


@dataclass(frozen=True, kw_only=True)
class ReferenceTexts:
    """Snippets to compare generated texts with, and the TF-IDF vectorizer for the comparison (docs/method.md §1.4).

    Attributes:
        snippets: texts by relation and object.
        tfidf: the vectorizer with its inverse document frequencies.
    """

    snippets: Snippets
    tfidf: TfIdf

    def files(self) -> tuple[Path, ...]:
        """The paths of the snippets' file and of the vectorizer's files, which are downloaded if necessary.

        Raises:
            DataError: a file is missing or cannot be downloaded.
        """
        return (self.snippets.locate(), *self.tfidf.files())

    def needed(self, cases: Sequence[Case]) -> frozenset[SnippetKey]:
        """The keys (relation, new object) of the cases; empty if the vectorizer is fitted, since then all are read."""
        if self.tfidf.fit:
            return frozenset()
        return frozenset((case.request.relation_id, case.request.target_new_id) for case in cases)

    def load(self, needed: frozenset[SnippetKey]) -> LoadedReferences:
        """Load the snippets with these keys, and the vectorizer. If it is fitted on the snippets, all are loaded.

        Raises:
            DataError: a file is missing, cannot be downloaded, or is not what is expected.
        """
        table = self.snippets.load(None if self.tfidf.fit else needed)
        vectorizer = self.tfidf.load(table)
        idf = hashlib.sha256(np.ascontiguousarray(vectorizer.idf_).tobytes()).hexdigest()
        return LoadedReferences(
            references=References(snippets=table, vectorizer=vectorizer),
            digests={"snippets": table.sha256, "idf": idf[:16]},
        )


@dataclass(frozen=True, kw_only=True)
class NoReferences:
    """No reference texts (`references=none`). Texts are generated and GE is measured, but RS is left out."""

    def files(self) -> tuple[Path, ...]:
        """There are no files."""
        return ()

    def needed(self, cases: Sequence[Case]) -> frozenset[SnippetKey]:
        """No text is needed."""
        return frozenset()

    def load(self, needed: frozenset[SnippetKey]) -> LoadedReferences:
        """Load nothing."""
        return LoadedReferences(references=None, digests={})
