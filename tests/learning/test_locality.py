"""Locality texts: which are drawn, how long they are, which are kept for validation."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from learning_cases import TEXTS, edits

from romexp.errors import ConfigError, DataError
from romexp.learning.locality import Locality
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode


@dataclass(frozen=True)
class Memory:
    """A corpus in memory; `stream` gives it one by one."""

    texts: tuple[str, ...]
    stream: bool = False

    @property
    def provenance(self) -> dict[str, Any]:
        return {"kind": "memory"}

    def load(self) -> Iterable[str]:
        return iter(self.texts) if self.stream else self.texts


class Unreadable:
    provenance: ClassVar[dict[str, Any]] = {}

    def load(self) -> Iterator[str]:
        raise AssertionError("the corpus was read")


def ids_of(lm: LanguageModel, text: str) -> tuple[int, ...]:
    return encode(lm.tokenizer, [text])[0].ids


def drawn(lm: LanguageModel, source: Locality, *, validation: bool = False) -> set[tuple[int, ...]]:
    texts, rng, edit = source.load(lm), random.Random(0), edits(lm, ("Anna",))[0]
    return {texts.draw(edit, rng, validation=validation) for _ in range(150)}


@pytest.mark.parametrize("stream", [False, True])
def test_the_end_of_the_corpus_is_for_validation(tiny_gpt2: LanguageModel, stream: bool) -> None:
    source = Locality(corpus=Memory(TEXTS, stream), validation=0.34)
    assert drawn(tiny_gpt2, source) == {ids_of(tiny_gpt2, text) for text in TEXTS[:4]}
    assert drawn(tiny_gpt2, source, validation=True) == {ids_of(tiny_gpt2, text) for text in TEXTS[4:]}


def test_texts_are_cut(tiny_gpt2: LanguageModel) -> None:
    short = drawn(tiny_gpt2, Locality(corpus=Memory(TEXTS), max_tokens=3))
    assert short == {ids_of(tiny_gpt2, text)[:3] for text in TEXTS[:5]}
    whole = drawn(tiny_gpt2, Locality(corpus=Memory(("Paris, " * 500, "Anna, " * 500)), max_tokens=100_000))
    assert {len(ids) for ids in whole} == {tiny_gpt2.max_positions}


def test_neighbours_of_the_edit(tiny_gpt2: LanguageModel) -> None:
    own = {ids_of(tiny_gpt2, text) for text in edits(tiny_gpt2, ("Anna",))[0].neighbors}
    assert drawn(tiny_gpt2, Locality(corpus=Unreadable(), neighbors=1.0)) == own
    some = drawn(tiny_gpt2, Locality(corpus=Memory(TEXTS), neighbors=0.5))
    assert own < some
    assert not own & drawn(tiny_gpt2, Locality(corpus=Memory(TEXTS)))


def test_an_edit_without_neighbours_needs_a_corpus(tiny_gpt2: LanguageModel) -> None:
    texts = Locality(corpus=Unreadable(), neighbors=1.0).load(tiny_gpt2)
    alone = replace(edits(tiny_gpt2, ("Anna",))[0], neighbors=())
    with pytest.raises(DataError, match="'Anna' has no neighbourhood prompt"):
        texts.draw(alone, random.Random(0))


def test_what_cannot_serve_is_refused(tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(DataError, match="1 texts"):
        Locality(corpus=Memory(TEXTS[:1])).load(tiny_gpt2)
    with pytest.raises(DataError, match="fewer than two tokens"):
        drawn(tiny_gpt2, Locality(corpus=Memory(("a", "b", "c"))))
    for bad in ({"neighbors": 1.5}, {"validation": 1.0}, {"max_tokens": 1}):
        with pytest.raises(ConfigError):
            Locality(corpus=Memory(TEXTS), **bad)
