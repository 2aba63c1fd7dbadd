"""What a text corpus must offer to have second moments measured on it, and which of its texts are read."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol


class Corpus(Protocol):
    """A source of texts; `romexp.data.corpora` has the implementations."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What identifies the texts, JSON-ready, without a network and without paths of this machine."""
        ...

    def load(self) -> Iterable[str]:
        """The texts: a `Sequence` where they can be indexed, else an iterable to be read once from its start."""
        ...


def sample(texts: Iterable[str], size: int | None, *, seed: int) -> tuple[Iterator[str], int | None]:
    """The texts to read, in order, and how many they are (None if unknown).

    Indexable texts: the first `size` of all indices as shuffled by `random.Random(seed)`, which for seed 1 is the
    reference's sample (SPEC §3.3). Others: the first `size` as they come. `size` None takes all, shuffled likewise.
    """
    if not isinstance(texts, Sequence):
        return islice(texts, size), size
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    chosen = order if size is None else order[:size]
    return (texts[i] for i in chosen), len(chosen)
