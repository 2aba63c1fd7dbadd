"""`dataset=world`: facts about real countries, cities, languages, companies, people and works, and their sources.

`README.md` is the data card. The records were built by `romexp task=dataset` from the triples and templates here.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

TRIPLES, TEMPLATES, SENTENCES = "triples.csv", "templates.yaml", "sentences.txt"
RECORDS, QUESTIONS, KNOWN = "records.json.gz", "questions.json.gz", "known_smollm2.json.gz"


def world_dir() -> Path:
    """The folder of all files. The package must be installed as a folder, not as a zip archive."""
    return Path(str(files("romexp.data.world")))


def records_path() -> Path:
    """The records in CounterFact's schema (docs/method.md §1.1)."""
    return world_dir() / RECORDS


def questions_path() -> Path:
    """Questions about the same facts, in zsRE's schema (docs/method.md §1.2)."""
    return world_dir() / QUESTIONS


def known_path() -> Path:
    """430 of the facts, which SmolLM2-135M-Instruct states, for causal tracing (docs/method.md §1.3)."""
    return world_dir() / KNOWN
