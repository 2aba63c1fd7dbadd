"""Reference texts of objects, their TF-IDF statistics (docs/method.md §1.4), and a sample of the corpus."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from romexp.minifact.corpus import CorpusMix, CorpusWriter, text_of
from romexp.minifact.relations import RELATIONS
from romexp.minifact.world import World

Snippet = dict[str, Any]


def attribute_snippets(world: World, samples: int, seed: int) -> list[Snippet]:
    """For each relation and object, up to `samples` biographies of subjects that have this object."""
    rng = random.Random(f"minifact snippets {seed}")
    writer = CorpusWriter(world, CorpusMix(error=0.0), f"snippets {seed}")
    snippets = []
    pairs = [(relation, target) for relation in RELATIONS for target in relation.objects]
    for relation, target in pairs:
        facts = world.by_object.get((relation.relation_id, target), ())
        chosen = rng.sample(facts, min(samples, len(facts)))
        texts = [{"name": fact.entity.name, "text": text_of(writer.biography(fact.entity))} for fact in chosen]
        snippets.append({"relation_id": relation.relation_id, "target_id": target, "samples": texts})
    return snippets


def tfidf_statistics(snippets: list[Snippet]) -> tuple[np.ndarray, dict[str, int]]:
    """The inverse document frequencies, float64 (words), and the column of each word, by scikit-learn's defaults."""
    vectorizer = TfidfVectorizer()
    vectorizer.fit(sample["text"] for snippet in snippets for sample in snippet["samples"])
    vocabulary = {word: int(column) for word, column in sorted(vectorizer.vocabulary_.items())}
    return np.asarray(vectorizer.idf_, dtype=np.float64), vocabulary


def corpus_lines(world: World, mix: CorpusMix, documents: int, seed: int) -> Iterator[str]:
    """A sample of the corpus, each document as one line. They are not the training documents, but of the same kinds."""
    writer = CorpusWriter(world, mix, f"sample {seed}")
    return (text_of(document) for document in itertools.islice(iter(writer), documents))
