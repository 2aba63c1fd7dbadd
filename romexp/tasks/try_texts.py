"""The texts that `task=try` shows besides the fact's own prompt: about its subject, and about others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from romexp.facts import Case, EditRequest, fill
from romexp.tasks.try_fact import Example

MOST_ABOUT, MOST_OTHERS = 3, 6
"""Numbers of texts of a record that fit on one screen."""


@dataclass(frozen=True, kw_only=True)
class ShownTexts:
    """What is shown.

    Attributes:
        about: texts about the subject.
        others: texts about other subjects, which should not change.
        source: which of them are those of which record; empty if none is.
    """

    about: Sequence[str]
    others: Sequence[str]
    source: str = ""


def texts_to_show(
    request: EditRequest,
    *,
    example: Example,
    cases: Callable[[], Iterable[Case]],
    about: Sequence[str] | None,
    others: Sequence[str] | None,
) -> ShownTexts:
    """The user's texts; where there are none, those of the example or of the subject's record, and else the example's
    for any subject.

    Args:
        cases: gives the records; it is called only if they are needed.
        about, others: the user's texts, with `{}` for the subject.
    """
    named, subject = [], request.subject
    from_example = example.ask if subject == example.subject else example.about
    needed = subject != example.subject and (about is None or others is None)
    record = _record_of(cases(), request) if needed else None
    if about is None and record is not None and (found := _about(record, request)):
        about, named = found, ["about it"]
    if others is None and record is not None and (found := _others(record)):
        others, named = found, [*named, "about others"]
    return ShownTexts(
        about=[fill(text, subject) for text in (from_example if about is None else about)],
        others=[text for text in example.keep if subject not in text] if others is None else others,
        source=f"texts {' and '.join(named)}: record {record.case_id}" if record is not None and named else "",
    )


def _record_of(cases: Iterable[Case], request: EditRequest) -> Case | None:
    """Of the records with this subject the first with the request's prompt, else the first."""
    found = [case for case in cases if case.request.subject == request.subject]
    return next((case for case in found if case.request.prompt == request.prompt), found[0] if found else None)


def _about(record: Case, request: EditRequest) -> list[str]:
    """Paraphrases if the record is about the same fact, and beginnings of texts."""
    same = record.request.prompt == request.prompt
    texts = (*(record.paraphrase_prompts if same else ()), *record.generation_prompts)
    return [text for text in dict.fromkeys(texts) if text != request.text][:MOST_ABOUT]


def _others(record: Case) -> list[str]:
    """Neighbourhood prompts: of their subjects the record's true object is true as well."""
    texts = dict.fromkeys(record.neighborhood_prompts)
    return [text for text in texts if record.request.subject not in text][:MOST_OTHERS]
