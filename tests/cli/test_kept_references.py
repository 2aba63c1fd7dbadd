"""Reference texts are read once a process, and not at all for runs that are finished; changed files are noticed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import Command, rows

from romexp.cli.kept_between_jobs import KeptReferences
from romexp.data.snippets import Snippets
from romexp.data.tfidf import TfIdf
from romexp.facts import Case, EditRequest
from romexp.minifact.assets import idf_path, vocabulary_path
from romexp.references import NoReferences, ReferenceTexts

KEYS = [("P1", "Q1"), ("P1", "Q3")]


def case(target: str) -> Case:
    request = EditRequest(
        subject="S", prompt="{} is", target_new="a", target_true="b", relation_id="P1", target_new_id=target
    )
    return Case(case_id=0, request=request)


def write_snippets(path: Path, *, text: str = "plays the violin") -> None:
    entries = [{"relation_id": r, "target_id": t, "samples": [{"name": "Bob", "text": text}]} for r, t in KEYS]
    path.write_text(json.dumps(entries))


@pytest.fixture
def source(tmp_path: Path) -> ReferenceTexts:
    write_snippets(tmp_path / "snippets.json")
    idf, vocabulary = (shutil.copy(path(), tmp_path) for path in (idf_path, vocabulary_path))
    return ReferenceTexts(
        snippets=Snippets(path=tmp_path / "snippets.json"), tfidf=TfIdf(idf_path=idf, vocabulary_path=vocabulary)
    )


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The keys that were asked for at each reading of snippets, in order."""
    asked: list[Any] = []
    load = Snippets.load

    def counting(self: Snippets, needed: Collection[Any] | None = None) -> Any:
        asked.append(needed)
        return load(self, needed)

    monkeypatch.setattr(Snippets, "load", counting)
    return asked


def test_the_same_texts_are_read_once(source: ReferenceTexts, read: list[Any], tmp_path: Path) -> None:
    kept = KeptReferences()
    both = kept.load(source, [case("Q1"), case("Q3")], cache_dir=tmp_path)
    assert kept.load(replace(source), [case("Q3")], cache_dir=tmp_path) is both
    assert len(read) == 1
    assert both.references is not None
    assert both.references.of(case("Q3").request)


def test_cases_that_need_others_have_them(source: ReferenceTexts, tmp_path: Path) -> None:
    kept = KeptReferences()
    first = kept.load(source, [case("Q1")], cache_dir=tmp_path)
    second = kept.load(source, [case("Q3")], cache_dir=tmp_path)
    assert first.references is not None
    assert second.references is not None
    assert not first.references.of(case("Q3").request)
    assert second.references.of(case("Q3").request)
    assert first.digests == second.digests


def test_digests_are_noted_for_other_processes(source: ReferenceTexts, read: list[Any], tmp_path: Path) -> None:
    digests = KeptReferences().digests(source, [case("Q1")], cache_dir=tmp_path)
    assert KeptReferences().digests(source, [case("Q3")], cache_dir=tmp_path) == digests
    assert len(read) == 1
    assert source.load(frozenset()).digests == digests


@pytest.mark.parametrize("which", ["snippets.json", "idf.npy", "tfidf_vocab.json"])
def test_a_changed_file_is_read_anew(source: ReferenceTexts, read: list[Any], tmp_path: Path, which: str) -> None:
    kept = KeptReferences()
    first = kept.load(source, [case("Q1")], cache_dir=tmp_path)
    file = {path.name: path for path in source.files()}[which]
    if which == "snippets.json":
        write_snippets(file, text="plays the cello")
    else:
        os.utime(file, ns=(1, 1))
    digests = KeptReferences().digests(source, [case("Q1")], cache_dir=tmp_path)
    assert len(read) == 2, "the note was of another file"
    assert (digests == first.digests) == (which != "snippets.json")
    assert kept.load(source, [case("Q1")], cache_dir=tmp_path) is not first


def test_fitted_weights_are_others_and_fit_every_case(source: ReferenceTexts, read: list[Any], tmp_path: Path) -> None:
    fitted = replace(source, tfidf=TfIdf(fit=True))
    kept = KeptReferences()
    first = kept.load(fitted, [case("Q1")], cache_dir=tmp_path)
    assert kept.load(fitted, [case("Q3")], cache_dir=tmp_path) is first
    assert read == [None]
    assert first.digests["idf"] != kept.digests(source, [case("Q1")], cache_dir=tmp_path)["idf"]


def test_without_texts_nothing_is_noted(tmp_path: Path) -> None:
    kept = KeptReferences()
    assert kept.digests(NoReferences(), [case("Q1")], cache_dir=tmp_path) == {}
    assert kept.load(NoReferences(), [case("Q1")], cache_dir=tmp_path).references is None
    assert not list(tmp_path.iterdir())


def test_pickling_leaves_the_texts(source: ReferenceTexts, read: list[Any], tmp_path: Path) -> None:
    kept = KeptReferences()
    kept.load(source, [case("Q1")], cache_dir=tmp_path)
    copied = pickle.loads(pickle.dumps(kept))  # noqa: S301
    copied.load(source, [case("Q1")], cache_dir=tmp_path)
    assert len(read) == 2


@pytest.fixture
def with_texts(tiny: list[str], source: ReferenceTexts, tmp_path: Path) -> list[str]:
    """Overrides for runs that generate and compare."""
    snippets, idf, vocabulary = source.files()
    return [
        *tiny, "dataset.limit=1", "evaluator.generation=on", "evaluator.sampler.max_length=12",
        f"references.snippets.path={snippets}", f"references.tfidf.idf_path={idf}",
        f"references.tfidf.vocabulary_path={vocabulary}", f"cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip


def test_a_sweep_reads_them_once_and_a_finished_one_never(
    romexp: Command, with_texts: list[str], read: list[Any], tmp_path: Path
) -> None:
    sweep = [*with_texts, "editor.layer=0,1", "-m"]
    assert romexp(*sweep).status == 0
    assert len(read) == 1
    one, _ = tmp_path.glob("outputs/edit/*/*/*/*")
    assert rows(one)[0]["post"]["reference_score"] is not None
    assert json.loads((one / "manifest.json").read_text())["identity"]["references"]
    again = romexp(*sweep)
    assert (again.status, len(read)) == (0, 1)
    assert again.err.count("was finished before") == 2


def test_a_note_that_no_longer_holds_ends_the_run_with_a_message(
    romexp: Command, with_texts: list[str], tmp_path: Path
) -> None:
    assert romexp(*with_texts).status == 0
    (note,) = (tmp_path / "cache" / "references").iterdir()
    right = note.read_text()
    note.write_text('{"snippets": "another"}')
    refused = romexp(*with_texts)
    assert refused.status == 2
    assert "references: the files have changed" in refused.err
    assert note.read_text() == right
    note.write_text("torn")
    assert "was finished before" in romexp(*with_texts).err
