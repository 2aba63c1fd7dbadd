"""Reference texts for the generation metrics, from the data package to the evaluator (config group `references`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from romexp.data.snippets import Snippets
from romexp.data.tfidf import TfIdf
from romexp.evaluation.generation import References
from romexp.facts import Case


@dataclass(frozen=True, kw_only=True)
class LoadedReferences:
    """References and what identifies them, JSON-ready."""

    references: References | None
    digests: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReferenceTexts:
    """Snippets to compare generations with, and the TF-IDF weights to do it by (SPEC §1.4).

    Attributes:
        snippets: texts by relation and object.
        tfidf: inverse document frequencies.
    """

    snippets: Snippets
    tfidf: TfIdf

    def load(self, cases: Sequence[Case]) -> LoadedReferences:
        """The snippets that these cases need, with the vectorizer.

        Raises:
            DataError: a file is missing, cannot be downloaded, or is not what is expected.
        """
        needed = {(case.request.relation_id, case.request.target_new_id) for case in cases}
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

    def load(self, cases: Sequence[Case]) -> LoadedReferences:
        return LoadedReferences(references=None, digests={})
