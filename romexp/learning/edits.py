"""What a network is trained on: edits, each with other texts of the same fact, split by subject
(docs/method.md §4.6).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from romexp.editors.targets import EditText
from romexp.errors import DataError, RecordError
from romexp.lm.model import LanguageModel
from romexp.seeds import derive_seed

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class TrainingEdit:
    """One edit to learn from.

    Attributes:
        subject: whom it is about; no subject is in training and validation both.
        text: what the edit is made from.
        rephrasings: texts on which the edited model is judged; without any it is judged on `text` with some of its
            leading tokens cut off.
        neighbors: texts on which the edited model must stay as it was.
        uncut: leading tokens that are never cut off (a BOS).
    """

    subject: str
    text: EditText
    rephrasings: tuple[EditText, ...] = ()
    neighbors: tuple[str, ...] = ()
    uncut: int = 0

    def outer(self, rng: random.Random) -> EditText:
        """A text on which to judge the edit: a rephrasing, or `text` without 0 … ⌊prompt / 2⌋ leading tokens."""
        if self.rephrasings:
            return rng.choice(self.rephrasings)
        cut = rng.randint(0, (self.text.target_start - self.uncut) // 2)
        ids = self.text.ids[: self.uncut] + self.text.ids[self.uncut + cut :]
        return EditText(ids=ids, target_start=self.text.target_start - cut)


@dataclass(frozen=True, kw_only=True)
class EditPool:
    """Edits to train on and edits to validate on, without a common subject.

    Attributes:
        set_aside: edits that cannot be used, with the reason (manifest entries).
        facts: further entries of the manifest: where the edits come from.
    """

    training: tuple[TrainingEdit, ...]
    validation: tuple[TrainingEdit, ...]
    set_aside: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class EditSource(Protocol):
    """Where edits come from (`task.edits`)."""

    def load(self, lm: LanguageModel, *, seed: int, cache_dir: Path) -> EditPool:
        """The edits, tokenized for this model.

        Args:
            seed: decides the split and everything random.
            cache_dir: for what takes long to make.

        Raises:
            DataError: nothing to train or to validate on, or subjects that must not be seen.
        """
        ...


def usable(
    records: Iterable[tuple[int, Record]], make: Callable[[Record], TrainingEdit]
) -> tuple[list[TrainingEdit], list[dict[str, Any]]]:
    """The edits that `make` gives of numbered records, and manifest entries of those that it refuses."""
    edits: list[TrainingEdit] = []
    aside: list[dict[str, Any]] = []
    for case_id, record in records:
        try:
            edits.append(make(record))
        except RecordError as error:
            aside.append({"case_id": case_id, "field": error.field, "reason": error.reason})
    return edits, aside


def pool(
    edits: Sequence[TrainingEdit],
    *,
    validation: float,
    seed: int,
    set_aside: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
) -> EditPool:
    """Split by subject: about a share `validation` of the subjects, at least one of them, for validation.

    Which ones depends on the seed and their names, not on their order.

    Raises:
        DataError: fewer than two subjects.
    """
    subjects = sorted({key(edit.subject) for edit in edits}, key=lambda name: derive_seed(seed, "validation", name))
    if len(subjects) < 2:
        raise DataError(f"edits about {len(subjects)} subjects: too few to train on some and validate on others")
    count = min(max(1, round(validation * len(subjects))), len(subjects) - 1)
    kept_back = set(subjects[:count])
    return EditPool(
        training=tuple(edit for edit in edits if key(edit.subject) not in kept_back),
        validation=tuple(edit for edit in edits if key(edit.subject) in kept_back),
        set_aside=tuple(set_aside),
        facts=dict(facts or {}),
    )


def key(subject: str) -> str:
    """What two spellings of a subject have in common."""
    return " ".join(subject.split()).casefold()


def shared_subject(one: Iterable[str], other: Iterable[str]) -> str | None:
    """A subject of `one` that is in `other` too; None if there is none."""
    known = {key(subject) for subject in other}
    return next((subject for subject in one if key(subject) in known), None)
