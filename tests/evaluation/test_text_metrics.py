"""Entropy, TF-IDF cosine and essence against values computed by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import nltk.data
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from romexp.evaluation import text_metrics
from romexp.evaluation.text_metrics import (
    entropy,
    essence_score,
    ngram_entropy,
    punkt_available,
    reference_score,
    text_entropy,
    tokenizer_in_use,
    words,
)

TOKENS = st.lists(st.sampled_from("abcd"), max_size=30)


@pytest.fixture
def nltk_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty NLTK data folder, the only one that is searched."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    punkt_available.cache_clear()
    yield tmp_path
    punkt_available.cache_clear()


def test_entropy_by_hand() -> None:
    tokens = ["a", "b", "a", "b", "a", "b"]
    # Bigrams: ab 3 times, ba twice; trigrams: aba twice, bab twice.
    bigrams = -(3 / 5 * math.log2(3 / 5) + 2 / 5 * math.log2(2 / 5))
    assert entropy(tokens, 2) == pytest.approx(bigrams) == pytest.approx(0.9709505944546686)
    assert entropy(tokens, 3) == pytest.approx(1.0)
    assert text_entropy("a b a b a b") == pytest.approx(bigrams / 3 + 2 / 3)


def test_entropy_of_distinct_ngrams_is_the_log_of_their_number() -> None:
    # Nine words: 8 distinct bigrams, 7 distinct trigrams.
    text = "one two three four five six seven eight nine"
    assert text_entropy(text) == pytest.approx(3 / 3 + 2 / 3 * math.log2(7))


def test_entropy_of_too_short_texts_is_zero_not_nan() -> None:
    assert text_entropy("") == text_entropy("word") == text_entropy("two words") == 0.0
    assert math.copysign(1, text_entropy("two words")) == 1  # and not -0.0, which would print as such


def test_case_entropy_is_the_arithmetic_mean() -> None:
    repeated, varied = "no no no no no", "one two three four five"
    assert text_entropy(repeated) == 0.0
    assert ngram_entropy([repeated, varied]) == pytest.approx(text_entropy(varied) / 2)
    with pytest.raises(ValueError, match="no texts"):
        ngram_entropy([])


@given(TOKENS, st.integers(1, 4))
def test_entropy_bounds(tokens: list[str], n: int) -> None:
    count = max(len(tokens) - n + 1, 0)
    value = entropy(tokens, n)
    assert 0 <= value <= math.log2(max(count, 1)) + 1e-9


@given(TOKENS, st.permutations("abcd"))
def test_entropy_does_not_depend_on_names(tokens: list[str], order: list[str]) -> None:
    renamed = [order["abcd".index(token)] for token in tokens]
    assert entropy(renamed, 2) == pytest.approx(entropy(tokens, 2), abs=1e-12)


def test_without_punkt_words_are_nltks_and_the_manifest_says_so(nltk_data: Path) -> None:
    assert "no punkt_tab" in tokenizer_in_use()
    assert words("Don't stop, John.") == ["Do", "n't", "stop", ",", "John", "."]
    assert words("I ran. He sat.") == ["I", "ran.", "He", "sat", "."]  # what splitting sentences would change


def test_with_punkt_the_manifest_says_so(nltk_data: Path) -> None:
    (nltk_data / "tokenizers" / "punkt_tab" / "english").mkdir(parents=True)
    assert punkt_available()
    assert "sentences by punkt_tab" in tokenizer_in_use()


def test_with_punkt_sentences_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.tokenize

    monkeypatch.setattr(text_metrics, "punkt_available", lambda: True)
    monkeypatch.setattr(nltk.tokenize, "sent_tokenize", lambda text, language: text.split("|"))
    assert words("I ran.|He sat.") == ["I", "ran", ".", "He", "sat", "."]


@pytest.fixture(scope="module")
def vectorizer() -> TfidfVectorizer:
    return TfidfVectorizer().fit(["violin music violin", "music of Paris", "Paris is a city"])


def test_reference_score_by_hand(vectorizer: TfidfVectorizer) -> None:
    # n = 3 documents; df(violin) = 1, df(music) = df(Paris) = 2; idf = ln((1+n)/(1+df)) + 1.
    violin, music = math.log(4 / 2) + 1, math.log(4 / 3) + 1
    paris = music
    texts = ["Violin violin", "music unknown"]  # counts: violin 2, music 1
    reference = vectorizer.transform(["music Paris"])
    expected = music * music / (np.hypot(2 * violin, music) * np.hypot(music, paris))
    assert reference_score(texts, reference, vectorizer) == pytest.approx(expected)


def test_reference_score_limits(vectorizer: TfidfVectorizer) -> None:
    reference = vectorizer.transform(["violin music"])
    assert reference_score(["music", "violin"], reference, vectorizer) == pytest.approx(1.0)
    assert reference_score(["city of Paris"], reference, vectorizer) == 0.0
    assert reference_score(["zzz"], reference, vectorizer) == 0.0  # no word of the vocabulary: the reference has NaN


def test_essence_divides_by_all_tokens() -> None:
    # Four tokens, three of which are predicted.
    assert essence_score([1.0, 2.0, 3.0]) == pytest.approx(math.exp(6 / 4))
    assert essence_score([]) == 1.0
    assert essence_score([1e6]) == math.inf
