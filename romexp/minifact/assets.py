"""Paths of the files that ship with the package: model, tokenizer, data files and editing networks."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

MODEL = "model"
COUNTERFACT, ZSRE, KNOWN = "counterfact.json", "zsre.json", "known.json"
SNIPPETS, TFIDF, CORPUS = "attribute_snippets.json", "tfidf", "corpus.txt"
IDF, VOCABULARY = "idf.npy", "tfidf_vocab.json"
SECOND_MOMENTS = "second_moments.safetensors"
EDITORS = "editors"


def assets_dir() -> Path:
    """The folder of all assets. The package must be installed as a folder, not as a zip archive."""
    return Path(str(files("romexp.minifact"))) / "assets"


def model_dir() -> Path:
    """The folder for `from_pretrained`: GPT-2 weights (float32 safetensors), configuration and tokenizer."""
    return assets_dir() / MODEL


def counterfact_path() -> Path:
    """Counterfactual edits in the CounterFact schema (docs/method.md §1.1)."""
    return assets_dir() / COUNTERFACT


def zsre_path() -> Path:
    """Questions in the zsRE schema (docs/method.md §1.2). The unedited model does not know some of the answers."""
    return assets_dir() / ZSRE


def known_path() -> Path:
    """Facts that the model knows, in the schema of known_1000 (docs/method.md §1.3)."""
    return assets_dir() / KNOWN


def snippets_path() -> Path:
    """Reference texts by relation and object (docs/method.md §1.4)."""
    return assets_dir() / SNIPPETS


def tfidf_dir() -> Path:
    """The folder of `idf.npy` and `tfidf_vocab.json` (docs/method.md §1.4)."""
    return assets_dir() / TFIDF


def corpus_path() -> Path:
    """A sample of the corpus, one document on each line. Second moments are measured on it."""
    return assets_dir() / CORPUS


def second_moments_path() -> Path:
    """The second moments of every layer, measured on `corpus_path` (docs/method.md §3.3)."""
    return assets_dir() / SECOND_MOMENTS


def mend_path() -> Path:
    """MEND's network for the model, made by `romexp task=train editor=mend` (docs/method.md §4.6).

    Its training edits name no subject of the first 200 records of `counterfact_path` or the first 100 of `zsre_path`.
    """
    return assets_dir() / EDITORS / "mend.safetensors"


def ke_path() -> Path:
    """KE's network for the model, made by `romexp task=train editor=ke` on the same edits as MEND's network."""
    return assets_dir() / EDITORS / "ke.safetensors"


def idf_path() -> Path:
    """Inverse document frequencies of the snippets' terms (docs/method.md §1.4)."""
    return tfidf_dir() / IDF


def vocabulary_path() -> Path:
    """A JSON object that maps each term to its column in `idf_path`."""
    return tfidf_dir() / VOCABULARY
