"""Reference texts for the generation metrics, from the data package to the evaluator (config group `references`)."""

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
    """References and what identifies them, JSON-ready."""

    references: References | None
    digests: Mapping[str, Any]


class ReferenceSource(Protocol):
    """Texts for the generation metrics (config group `references`)."""

    def files(self) -> Sequence[Path]:
        """Every file that the texts and their digests depend on."""
        ...

    def needed(self, cases: Sequence[Case]) -> frozenset[SnippetKey]:
        """Which of the texts are to be read for these cases."""
        ...

    def load(self, needed: frozenset[SnippetKey]) -> LoadedReferences:
        """These texts. Their digests are those of the whole files."""
        ...


@dataclass(frozen=True, kw_only=True)
class ReferenceTexts:
    """Snippets to compare generations with, and the TF-IDF weights to do it by (docs/method.md §1.4).

    Attributes:
        snippets: texts by relation and object.
        tfidf: inverse document frequencies.
    """

    snippets: Snippets
    tfidf: TfIdf

    def files(self) -> tuple[Path, ...]:
        """The snippets' file and those of the weights, downloaded if need be.

        Raises:
            DataError: a file is missing or cannot be downloaded.
        """
        return (self.snippets.locate(), *self.tfidf.files())

    def needed(self, cases: Sequence[Case]) -> frozenset[SnippetKey]:
        """Relation and new object of each case; none, since all are read, where the weights are fitted on them."""
        if self.tfidf.fit:
            return frozenset()
        return frozenset((case.request.relation_id, case.request.target_new_id) for case in cases)

    def load(self, needed: frozenset[SnippetKey]) -> LoadedReferences:
        """The snippets of these keys (of all, where the weights are fitted on them), with the vectorizer.

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
    """No reference texts (`references=none`): generations are drawn and GE is taken, RS is left out."""

    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def needed(self, cases: Sequence[Case]) -> frozenset[SnippetKey]:
        """None."""
        return frozenset()

    def load(self, needed: frozenset[SnippetKey]) -> LoadedReferences:
        """Nothing."""
        return LoadedReferences(references=None, digests={})
