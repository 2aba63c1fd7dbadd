"""Training edits and the texts that judge them, split into training and validation by subject
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
    """One edit to train on.

    Attributes:
        subject: the subject of the edit. No subject is in both training and validation.
        text: the text from which the edit is computed.
        rephrasings: texts on which the edited model is judged. If there are none, it is judged on `text` with some
            leading tokens cut off.
        neighbors: neighbourhood prompts with their answers, which can be used as locality texts.
        uncut: number of leading tokens that are never cut off: special tokens before the text, such as a BOS token.
    """

    subject: str
    text: EditText
    rephrasings: tuple[EditText, ...] = ()
    neighbors: tuple[str, ...] = ()
    uncut: int = 0

    def outer(self, rng: random.Random) -> EditText:
        """Draw a text on which to judge the edit: a rephrasing, or `text` without up to half of the prompt's tokens."""
        if self.rephrasings:
            return rng.choice(self.rephrasings)
        cut = rng.randint(0, (self.text.target_start - self.uncut) // 2)
        ids = self.text.ids[: self.uncut] + self.text.ids[self.uncut + cut :]
        return EditText(ids=ids, target_start=self.text.target_start - cut)


@dataclass(frozen=True, kw_only=True)
class EditPool:
    """Edits for training and for validation. The two have no subject in common.

    Attributes:
        set_aside: records that cannot be used, with the reason, for the manifest.
        facts: where the edits come from, for the manifest.
    """

    training: tuple[TrainingEdit, ...]
    validation: tuple[TrainingEdit, ...]
    set_aside: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class EditSource(Protocol):
    """A source of training edits (`task.edits`)."""

    def load(self, lm: LanguageModel, *, seed: int, cache_dir: Path) -> EditPool:
        """Load the edits and tokenize them for this model.

        Args:
            seed: decides the split into training and validation, and all other random choices.
            cache_dir: folder for generated files that take long to make.

        Raises:
            DataError: there are too few edits, or edits about subjects that must not be trained on.
        """
        ...


def usable(
    records: Iterable[tuple[int, Record]], make: Callable[[Record], TrainingEdit]
) -> tuple[list[TrainingEdit], list[dict[str, Any]]]:
    """Turn records into edits by `make`.

    Args:
        records: pairs (case id, record).

    Returns:
        The edits, and for each record that `make` refuses an entry for the manifest.
    """
    edits: list[TrainingEdit] = []
    set_aside: list[dict[str, Any]] = []
    for case_id, record in records:
        try:
            edits.append(make(record))
        except RecordError as error:
            set_aside.append({"case_id": case_id, "field": error.field, "reason": error.reason})
    return edits, set_aside


def pool(
    edits: Sequence[TrainingEdit],
    *,
    validation: float,
    seed: int,
    set_aside: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
) -> EditPool:
    """Split edits by subject into training and validation.

    About a share `validation` of the subjects, but at least one, is for validation. Which subjects these are depends on
    the seed and on the subjects' names, not on their order.

    Raises:
        DataError: there are fewer than two subjects.
    """
    subjects = sorted({key(edit.subject) for edit in edits}, key=lambda name: derive_seed(seed, "validation", name))
    if len(subjects) < 2:
        raise DataError(f"edits about {len(subjects)} subjects: training and validation need at least two subjects")
    count = min(max(1, round(validation * len(subjects))), len(subjects) - 1)
    validation_subjects = set(subjects[:count])
    return EditPool(
        training=tuple(edit for edit in edits if key(edit.subject) not in validation_subjects),
        validation=tuple(edit for edit in edits if key(edit.subject) in validation_subjects),
        set_aside=tuple(set_aside),
        facts=dict(facts or {}),
    )


def key(subject: str) -> str:
    """The subject in a normalized spelling, without differences in case or white space."""
    return " ".join(subject.split()).casefold()


def shared_subject(one: Iterable[str], other: Iterable[str]) -> str | None:
    """The first subject of `one` that is also in `other`, or None. Case and white space are ignored."""
    known = {key(subject) for subject in other}
    return next((subject for subject in one if key(subject) in known), None)
