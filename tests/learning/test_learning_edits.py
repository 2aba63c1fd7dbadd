"""Training edits: what judges them, how they are split, from which data they come."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from learning_cases import SUBJECTS, case, edits

from romexp.data.dataset import Loaded
from romexp.editors.targets import EditText, edit_text
from romexp.errors import ConfigError, DataError
from romexp.facts import Case, KnownFact
from romexp.learning.case_edits import CaseEdits
from romexp.learning.edits import TrainingEdit, pool, shared_subject
from romexp.lm.model import LanguageModel


@dataclass(frozen=True)
class Cases:
    """A data set that is already in memory."""

    items: tuple[Case, ...]
    name: str = "some"

    def load(self) -> Loaded[Case]:
        return Loaded(items=self.items, rejected=(), name=self.name, path="memory", sha256="0" * 64)


def cases(*subjects: str, **changes: object) -> Cases:
    return Cases(tuple(case(i, subject, **changes) for i, subject in enumerate(subjects)))


def test_without_a_rephrasing_leading_tokens_are_cut_off() -> None:
    """docs/method.md §4.6: 0 … ⌊(len − n)/2⌋ of them; the learned tokens stay."""
    edit = TrainingEdit(subject="", text=EditText(ids=tuple(range(10, 21)), target_start=9))
    rng = random.Random(0)
    outers = [edit.outer(rng) for _ in range(200)]
    assert {11 - len(outer.ids) for outer in outers} == {0, 1, 2, 3, 4}
    assert all(outer.ids[outer.target_start :] == (19, 20) for outer in outers)
    assert all(outer.ids == edit.text.ids[11 - len(outer.ids) :] for outer in outers)


def test_a_bos_is_never_cut_off() -> None:
    edit = TrainingEdit(subject="", text=EditText(ids=(1, 10, 11, 12, 13, 14), target_start=5), uncut=1)
    rng = random.Random(0)
    outers = {edit.outer(rng).ids for _ in range(100)}
    assert outers == {(1, 10, 11, 12, 13, 14), (1, 11, 12, 13, 14), (1, 12, 13, 14)}


def test_no_subject_is_on_both_sides(tiny_gpt2: LanguageModel) -> None:
    many = edits(tiny_gpt2, SUBJECTS) + edits(tiny_gpt2, tuple(name.upper() for name in SUBJECTS))
    split = pool(many, validation=0.25, seed=3)
    sides = [{edit.subject.casefold() for edit in side} for side in (split.training, split.validation)]
    assert [len(side) for side in sides] == [6, 2]
    assert not sides[0] & sides[1]
    assert len(split.training) + len(split.validation) == len(many)
    again = pool(tuple(reversed(many)), validation=0.25, seed=3)
    assert {e.subject for e in again.validation} == {e.subject for e in split.validation}
    others = [pool(many, validation=0.25, seed=seed) for seed in range(5)]
    assert len({frozenset(e.subject for e in other.validation) for other in others}) > 1


def test_one_subject_cannot_be_split(tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(DataError, match="1 subjects"):
        pool(edits(tiny_gpt2, ("Anna", "anna")), validation=0.5, seed=0)


def test_a_shared_subject_is_found_in_any_spelling() -> None:
    assert shared_subject(["Bob", "Anna  Zoë"], ["anna zoë"]) == "Anna  Zoë"
    assert shared_subject(["Bob"], ["Bobby"]) is None


def load(lm: LanguageModel, source: CaseEdits):  # type: ignore[no-untyped-def]
    return source.load(lm, seed=0, cache_dir=Path("unused"))


def test_an_edit_of_a_case(tiny_gpt2: LanguageModel) -> None:
    found = load(tiny_gpt2, CaseEdits(dataset=cases("Anna", "Bob"), validation=0.5))
    (edit,) = [e for e in (*found.training, *found.validation) if e.subject == "Anna"]
    assert edit.text == edit_text(tiny_gpt2, "Anna plays the", "violin")
    assert edit.rephrasings == (edit_text(tiny_gpt2, "It is said that Anna plays the", "violin"),)
    assert edit.neighbors == ("Bob is piano",)
    with_own = load(tiny_gpt2, CaseEdits(dataset=cases("Anna", "Bob"), rewrite=True))
    assert all(e.text in e.rephrasings and len(e.rephrasings) == 2 for e in with_own.training)


def test_answers_of_zsre_neighbours_are_their_own(tiny_gpt2: LanguageModel) -> None:
    asked = cases("Anna", "Bob", neighborhood_prompts=("nq question: who is it?",), neighborhood_targets=("a bank",))
    found = load(tiny_gpt2, CaseEdits(dataset=asked))
    assert found.training[0].neighbors == ("nq question: who is it? a bank",)


def test_test_subjects_must_not_be_seen(tiny_gpt2: LanguageModel) -> None:
    source = {"dataset": cases("Anna", "Bob", "Steve Jobs"), "test": Cases(cases("steve jobs").items, "held out")}
    with pytest.raises(DataError, match=r"\(some\).*\(held out\).*'Steve Jobs'.*leave_out_test_subjects"):
        load(tiny_gpt2, CaseEdits(**source))
    found = load(tiny_gpt2, CaseEdits(**source, leave_out_test_subjects=True))
    assert {e.subject for e in (*found.training, *found.validation)} == {"Anna", "Bob"}
    assert found.facts["test"]["left_out"] == 1
    apart = load(tiny_gpt2, CaseEdits(dataset=source["dataset"], test=cases("Danielle")))
    assert len(apart.training) + len(apart.validation) == 3


def test_without_test_data_there_is_a_warning(tiny_gpt2: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
    """Not for a data set that leaves subjects out by itself."""

    @dataclass(frozen=True)
    class HoldsOut:
        held_out: Cases

        def load(self) -> Loaded[Case]:
            return cases("Anna", "Bob").load()

    load(tiny_gpt2, CaseEdits(dataset=HoldsOut(cases("Danielle"))))
    load(tiny_gpt2, CaseEdits(dataset=cases("Anna", "Bob"), test=cases("Danielle")))
    assert not caplog.text
    load(tiny_gpt2, CaseEdits(dataset=cases("Anna", "Bob")))
    assert "dataset@task.edits.test" in caplog.text


def test_a_bad_case_is_set_aside(tiny_gpt2: LanguageModel) -> None:
    bad = case(7, "Danielle", paraphrase_prompts=("long " * 200,))
    found = load(tiny_gpt2, CaseEdits(dataset=Cases((*cases("Anna", "Bob").items, bad))))
    assert [entry["case_id"] for entry in found.set_aside] == [7]
    assert len(found.training) + len(found.validation) == 2


def test_known_facts_are_no_edits(tiny_gpt2: LanguageModel) -> None:
    facts = Cases((KnownFact(known_id=0, subject="Anna", attribute="piano", prompt="Anna plays the"),))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="KnownFact"):
        load(tiny_gpt2, CaseEdits(dataset=facts))
    with pytest.raises(DataError, match="no case"):
        load(tiny_gpt2, CaseEdits(dataset=Cases(())))


def test_a_share_is_between_0_and_1() -> None:
    with pytest.raises(ConfigError, match="validation"):
        CaseEdits(dataset=cases("Anna"), validation=0.0)
