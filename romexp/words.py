"""How varied the words of texts are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def word_entropy(texts: Sequence[str]) -> float:
    """Normalized word entropy of texts (r-ROME's sign of collapse): the Shannon entropy of their lower-cased words,
    divided by the logarithm of the number of different words. 1: all words are equally frequent. 0: there is one word.
    """
    counts = Counter(word for text in texts for word in text.lower().split())
    if len(counts) < 2:
        return 0.0
    total = counts.total()
    bits = math.fsum(-count / total * math.log2(count / total) for count in counts.values())
    return bits / math.log2(len(counts))
