"""Texts about a subject and about its neighbours, from a data set that has a record of the subject."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from romexp.facts import Case, EditRequest

MOST_ABOUT, MOST_OTHERS = 3, 6
"""Numbers of texts that fit on one screen."""


@dataclass(frozen=True, kw_only=True)
class RecordTexts:
    """What a record says about the subject of an edit.

    Attributes:
        case_id: of the record.
        about: texts about the subject: paraphrases if the record is about the same fact, and beginnings of texts.
        others: texts about other subjects of which the record's true object is true. An edit should not change them.
    """

    case_id: int
    about: tuple[str, ...]
    others: tuple[str, ...]


def texts_from_records(cases: Iterable[Case], request: EditRequest) -> RecordTexts | None:
    """The texts of the record with this subject; None if no record has it.

    Of several records the first with the request's prompt is taken, else the first.
    """
    found = [case for case in cases if case.request.subject == request.subject]
    if not found:
        return None
    same = next((case for case in found if case.request.prompt == request.prompt), None)
    case = same or found[0]
    texts = [*case.paraphrase_prompts, *case.generation_prompts] if same else case.generation_prompts
    about = _distinct(texts, without=request.text)
    others = [text for text in _distinct(case.neighborhood_prompts) if request.subject not in text]
    return RecordTexts(case_id=case.case_id, about=tuple(about[:MOST_ABOUT]), others=tuple(others[:MOST_OTHERS]))


def _distinct(texts: Iterable[str], without: str = "") -> list[str]:
    """Texts in order, each once."""
    return [text for text in dict.fromkeys(texts) if text != without]
