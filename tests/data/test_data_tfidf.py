"""TF-IDF statistics: stored and restored, or fitted, they give scikit-learn's own transform."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from raw_records import write
from sklearn.feature_extraction.text import TfidfVectorizer

from romexp.data.snippets import Snippet, Snippets
from romexp.data.tfidf import TfIdf, save_statistics
from romexp.errors import ConfigError, DataError

TEXTS = ("The Eiffel Tower stands in Paris.", "Paris is the capital of France, Paris!", "A tower of Babel; I I I")
NEW = ["Paris, paris and the unknown tower", "nothing known", ""]


@pytest.fixture
def snippets():
    return {
        ("P1", "Q1"): tuple(Snippet(name="", text=t) for t in TEXTS[:2]),
        ("P1", "Q2"): (Snippet(name="", text=TEXTS[2]),),
    }


@pytest.fixture
def files(tmp_path):
    paths = {"idf_path": tmp_path / "idf.npy", "vocabulary_path": tmp_path / "vocab.json"}
    save_statistics(TfidfVectorizer().fit(TEXTS), **paths)
    return paths


def test_restored_equals_fitted(files):
    expected = TfidfVectorizer().fit(TEXTS).transform(NEW).toarray()
    assert expected[0].any()
    np.testing.assert_array_equal(TfIdf(**files).load().transform(NEW).toarray(), expected)


def test_fit_equals_scikit_learn_on_the_texts(snippets):
    expected = TfidfVectorizer().fit(TEXTS).transform(NEW).toarray()
    np.testing.assert_array_equal(TfIdf(fit=True).load(snippets).transform(NEW).toarray(), expected)


def test_the_numbers_are_those_of_the_formula(files):
    """Counts × (ln((1 + n) / (1 + df)) + 1), L2 norm; words of two characters and more (docs/method.md §1.4)."""
    vectorizer = TfIdf(**files).load()
    row = vectorizer.transform(["paris PARIS tower babel I"]).toarray()[0]
    weights = {"paris": 2 * (math.log(4 / 3) + 1), "tower": math.log(4 / 3) + 1, "babel": math.log(4 / 2) + 1}
    norm = math.sqrt(sum(weight**2 for weight in weights.values()))
    found = {term: row[column] for term, column in vectorizer.vocabulary_.items() if row[column]}
    assert found == pytest.approx({term: weight / norm for term, weight in weights.items()})


def test_stored_statistics_are_used_not_refitted(files, snippets):
    np.save(files["idf_path"], np.full_like(np.load(files["idf_path"]), 2.0))
    assert set(TfIdf(**files).load(snippets).idf_) == {2.0}


def test_fit_refuses_a_part_of_the_snippets(tmp_path):
    samples = [{"name": "", "text": text} for text in TEXTS]
    file = write(tmp_path / "s.json", [{"relation_id": "P1", "target_id": "Q1", "samples": samples}])
    assert TfIdf(fit=True).load(Snippets(path=file).load()).vocabulary_
    for part in (Snippets(path=file).load([("P1", "Q1")]), {}, None):
        with pytest.raises(DataError, match="needs all snippets"):
            TfIdf(fit=True).load(part)


def test_files_that_do_not_fit_together(files):
    np.save(files["idf_path"], np.ones(3))
    with pytest.raises(DataError, match="has 3 entries"):
        TfIdf(**files).load()


@pytest.mark.parametrize(
    ("idf", "message"), [(np.ones((2, 2)), "one row"), (np.array([1, np.nan]), "finite"), (np.array(["a"]), "numbers")]
)
def test_bad_idf(files, idf, message):
    np.save(files["idf_path"], idf)
    with pytest.raises(DataError, match=message):
        TfIdf(**files).load()


def test_pickled_arrays_are_refused(files):
    np.save(files["idf_path"], np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"idf\.npy: not a NumPy array file"):
        TfIdf(**files).load()


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": "b"}', "{broken"])
def test_bad_vocabulary(files, content):
    files["vocabulary_path"].write_text(content)
    with pytest.raises(DataError, match=r"vocab\.json"):
        TfIdf(**files).load()


def test_a_column_used_twice(files):
    columns = json.loads(files["vocabulary_path"].read_text())
    columns["paris"] = columns["tower"]
    files["vocabulary_path"].write_text(json.dumps(columns))
    with pytest.raises(DataError, match=r"vocab\.json"):
        TfIdf(**files).load()


def test_contradicting_settings(files):
    with pytest.raises(ConfigError, match="both or neither"):
        TfIdf(idf_path=files["idf_path"])
    with pytest.raises(ConfigError, match="fit"):
        TfIdf(fit=True, **files)
