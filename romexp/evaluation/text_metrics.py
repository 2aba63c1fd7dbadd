"""Scores of generated texts, as pure functions (docs/method.md §5.4). They need no model and download nothing.

Importing NLTK and scikit-learn takes a second, so only the functions that use them import them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol


class Vectorizer(Protocol):
    """The method of a fitted scikit-learn `TfidfVectorizer` that is used here (docs/method.md §1.4)."""

    def transform(self, raw_documents: Sequence[str]) -> Any:
        """A sparse matrix (documents × vocabulary). Each row has norm 1, or is zero if it has no known word."""
        ...


@cache
def punkt_available() -> bool:
    """Whether NLTK's English sentence splitter is on this machine. Each process looks only once."""
    from nltk.data import find

    try:
        find("tokenizers/punkt_tab/english/")
    except LookupError:
        return False
    return True


def tokenizer_in_use() -> str:
    """Which word tokenizer `words` uses here, for the manifest. They differ only in full stops inside a text."""
    if punkt_available():
        return "nltk.word_tokenize (sentences by punkt_tab)"
    return "nltk.word_tokenize(preserve_line=True): no punkt_tab data, texts are not split into sentences"


def words(text: str) -> list[str]:
    """NLTK's word tokens. If its punkt data is there, as for the authors, the text is split into sentences first."""
    from nltk.tokenize import word_tokenize

    return word_tokenize(text, preserve_line=not punkt_available())


def entropy(tokens: Sequence[str], n: int) -> float:
    """Entropy in bits of the empirical distribution of the tokens' n-grams; 0 if there are none."""
    counts = Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
    total = counts.total()
    return math.fsum(-count / total * math.log2(count / total) for count in counts.values()) + 0.0


def text_entropy(text: str) -> float:
    """GE of one text: ½·(⅔·H₂ + 4/3·H₃) bits, over its bigrams and trigrams (docs/method.md §5.4)."""
    tokens = words(text)
    return (entropy(tokens, 2) * 2 / 3 + entropy(tokens, 3) * 4 / 3) / 2


def ngram_entropy(texts: Sequence[str]) -> float:
    """GE of a case: the arithmetic mean of `text_entropy` over its texts, in bits (docs/method.md §5.4).

    Raises:
        ValueError: there are no texts.
    """
    if not texts:
        raise ValueError("no texts")
    return math.fsum(map(text_entropy, texts)) / len(texts)


def reference_score(texts: Sequence[str], reference: Any, vectorizer: Vectorizer) -> float:
    """RS: cosine of the TF-IDF vectors of `texts`, joined by spaces, and of the reference (docs/method.md §5.4).

    RS is 0 if either has no word of the vocabulary. The authors' code gives NaN then.

    Args:
        reference: the TF-IDF vector (1 × vocabulary) that `vectorizer.transform` returned.
    """
    from sklearn.metrics.pairwise import cosine_similarity

    return float(cosine_similarity(vectorizer.transform([" ".join(texts)]), reference)[0, 0])


def essence_score(nlls: Sequence[float]) -> float:
    """Perplexity of a text of T tokens: exp(sum / T) (docs/method.md §5.4). The divisor is T, as in the authors' code.

    Args:
        nlls: -log p of the tokens 2 to T, in nats.
    """
    try:
        return math.exp(math.fsum(nlls) / (len(nlls) + 1))
    except OverflowError:
        return math.inf
