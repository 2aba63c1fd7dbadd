"""Where a subject stands in a text: as words of its own first, inside another word only if it stands nowhere else
(docs/method.md §2.2).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from romexp.errors import RecordError
from romexp.facts import fill

_WHOLE, _COMPOUND, _INSIDE = range(3)
"""Words of their own; a part of a compound, as in "Anna-Maria", "O'Neill", "8.1" or "U.S.A."; inside another word."""

_HYPHENS, _APOSTROPHES, _POINTS = "-\u2010\u2011", "'\u2019", ".,"

_UNSPACED = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u3040", "\u30ff"),  # Hiragana, Katakana
    ("\u3400", "\u9fff"),  # Chinese characters
    ("\uf900", "\ufaff"),
    ("\U00020000", "\U0003ffff"),
)
"""Scripts that put no spaces between words, so that a neighbouring character says nothing about where a word ends."""


def find_subject(text: str, subject: str, template: str = "") -> int:
    """Character offset of the subject in the text. White space around the subject is not counted.

    Taken is the first of these that there is:
    1. the place of `{}` in the template, if the text is the filled template, or a longer or shorter part of the same;
    2. the first place where the subject stands as whole words;
    3. the first place where it is a part of a compound ("Anna" in "Anna-Maria");
    4. the first place where it stands as whole words in other capitals;
    5. the first place inside another word, as for a stem to which the language attaches an ending.

    Raises:
        RecordError: the subject does not occur, or is empty.
    """
    word = subject.strip()
    if template.count("{}") == 1 and word:
        place = template.index("{}") + subject.index(word)
        filled = fill(template, subject)
        if (text.startswith(filled) or filled.startswith(text)) and text.startswith(word, place):
            return place
    exact = places(text, word)
    if not exact:
        raise RecordError(f"subject {subject!r} does not occur in {text!r}", field="subject")
    if _kind(text, exact[0], word) == _INSIDE:
        # Every character is folded alone, so that offsets in the folded text are those in the text.
        folded = places(_folded(text), _folded(word))
        return next((place for place in folded if _kind(text, place, word) == _WHOLE), exact[0])
    return exact[0]


def places(text: str, subject: str) -> list[int]:
    """Character offsets of the subject: those where it stands as whole words; if there are none, those where it is a
    part of a compound; if there are none either, those inside other words.
    """
    found = [(_kind(text, place, subject), place) for place in _occurrences(text, subject)]
    best = min((kind for kind, _ in found), default=_WHOLE)
    return [place for kind, place in found if kind == best]


def _occurrences(text: str, subject: str) -> Iterator[int]:
    place = text.find(subject) if subject else -1
    while place >= 0:
        yield place
        place = text.find(subject, place + 1)


def _folded(text: str) -> str:
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


def _kind(text: str, start: int, subject: str) -> int:
    before = text[max(start - 3, 0) : start + 1][::-1]
    after = text[start + len(subject) - 1 : start + len(subject) + 3]
    return max(_attached(before, before=True), _attached(after, before=False))


def _attached(chars: str, *, before: bool) -> int:
    """How a subject is attached to what stands on one side of it.

    Args:
        chars: the subject's outermost character on this side, and the next characters outwards, up to three.
        before: whether this is the side before the subject.
    """
    edge, outside, beyond, further = (chars[i : i + 1] for i in range(4))
    if _unspaced(edge):
        return _WHOLE
    if _of_a_word(outside):
        return _INSIDE if _of_a_word(edge) else _COMPOUND  # "U.S." in "U.S.A."
    if not _of_a_word(edge) or not _of_a_word(beyond):
        return _WHOLE
    possessive = not before and beyond in "sS" and not _of_a_word(further)
    compound = (
        (outside in _HYPHENS)
        or (outside in _APOSTROPHES and not possessive)
        or (outside in _POINTS and edge.isdigit() and beyond.isdigit())
    )
    return _COMPOUND if compound else _WHOLE


def _of_a_word(char: str) -> bool:
    """Whether a character belongs to the word beside it: a letter, a mark on one, a number, or an underscore."""
    return bool(char) and not _unspaced(char) and (char == "_" or unicodedata.category(char)[0] in "LMN")


def _unspaced(char: str) -> bool:
    return any(first <= char <= last for first, last in _UNSPACED)
