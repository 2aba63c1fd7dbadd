"""Scores of generated texts, as pure functions (docs/method.md §5.4). No model here, nothing is downloaded.

NLTK's and scikit-learn's imports take a second and are only needed when texts are scored, so functions import them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol


class Vectorizer(Protocol):
    """What a fitted scikit-learn `TfidfVectorizer` offers (docs/method.md §1.4)."""

    def transform(self, raw_documents: Sequence[str]) -> Any:
        """Sparse (documents × vocabulary), rows of length one or zero."""
        ...


@cache
def punkt_available() -> bool:
    """Whether NLTK's English sentence splitter is on this machine. Looked up once a process."""
    from nltk.data import find

    try:
        find("tokenizers/punkt_tab/english/")
    except LookupError:
        return False
    return True


def tokenizer_in_use() -> str:
    """Which word tokenizer `words` uses here, for the manifest: the two differ in full stops inside a text only."""
    if punkt_available():
        return "nltk.word_tokenize (sentences by punkt_tab)"
    return "nltk.word_tokenize(preserve_line=True): no punkt_tab data, texts are not split into sentences"


def words(text: str) -> list[str]:
    """NLTK's word tokens, with sentences split first if its punkt data is there (the reference has it)."""
    from nltk.tokenize import word_tokenize

    return word_tokenize(text, preserve_line=not punkt_available())


def entropy(tokens: Sequence[str], n: int) -> float:
    """Entropy in bits of the empirical distribution of the tokens' n-grams; 0 where there are none."""
    counts = Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
    total = counts.total()
    return math.fsum(-count / total * math.log2(count / total) for count in counts.values()) + 0.0


def text_entropy(text: str) -> float:
    """GE of one text: ½·(⅔·H₂ + 4/3·H₃) bits, over its bigrams and trigrams (docs/method.md §5.4)."""
    tokens = words(text)
    return (entropy(tokens, 2) * 2 / 3 + entropy(tokens, 3) * 4 / 3) / 2


def ngram_entropy(texts: Sequence[str]) -> float:
    """GE of a case: arithmetic mean of `text_entropy`, in bits.

    Raises:
        ValueError: no texts.
    """
    if not texts:
        raise ValueError("no texts")
    return math.fsum(map(text_entropy, texts)) / len(texts)


def reference_score(texts: Sequence[str], reference: Any, vectorizer: Vectorizer) -> float:
    """RS: cosine of the TF-IDF vectors of the space-joined `texts` and of a reference (docs/method.md §5.4).

    Where either has no word of the vocabulary they share nothing: 0 (the reference implementation gives NaN).

    Args:
        reference: (1 × vocabulary), as `vectorizer.transform` gives it.
    """
    from sklearn.metrics.pairwise import cosine_similarity

    return float(cosine_similarity(vectorizer.transform([" ".join(texts)]), reference)[0, 0])


def essence_score(nlls: Sequence[float]) -> float:
    """Perplexity of a text from -log p of its tokens 2…T: exp(sum / T). It divides by T, not T - 1
    (docs/method.md §5.4).
    """
    try:
        return math.exp(math.fsum(nlls) / (len(nlls) + 1))
    except OverflowError:
        return math.inf
