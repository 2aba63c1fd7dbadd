"""Fixtures of tests/api: the shipped model as `romexp.load` gives it, and one edit of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import romexp
from romexp.api.edits import FactEdit
from romexp.api.models import LoadedModel

SUBJECT, PROMPT, TARGET = "Selus Dunwood", "{} plays the", "cello"
SENTENCE = "Selus Dunwood plays the"
REWORDED = "The instrument of Selus Dunwood is the"
NEIGHBOR = "Marik Mirberg plays the"


@pytest.fixture(scope="session")
def face_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the face keeps between calls goes to a folder of the tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROMEXP_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def face_lm(face_cache: Path) -> LoadedModel:
    return romexp.load("minifact", device="cpu")


@pytest.fixture(scope="session")
def face_edit(face_lm: LoadedModel) -> FactEdit:
    return romexp.edit(face_lm, PROMPT, subject=SUBJECT, target=TARGET)
