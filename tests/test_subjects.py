"""A subject is found as words of its own before it is found inside another word."""

from __future__ import annotations

import pytest

from romexp.errors import RecordError
from romexp.subjects import find_subject, places


@pytest.mark.parametrize(
    ("text", "subject", "before"),
    [
        ("The Romeo statue in Rome was built by", "Rome", "The Romeo statue in "),
        ("Pianist Ian lives in", "Ian", "Pianist "),
        ("Chelsea Elsa won the", "Elsa", "Chelsea "),
        ("Anna Annan leads", "Annan", "Anna "),
        ("In Roman times, Oman was ruled by", "Oman", "In Roman times, "),
        ("McAdam met Adam Smith", "Adam", "McAdam met "),
        ("The XL and the XLarge", "XLarge", "The XL and the "),
        # both ends count, and several words count as one
        ("New Yorkers love New York", "New York", "New Yorkers love "),
        ("unParis Paris", "Paris", "unParis "),
        ("snake_Rome in Rome", "Rome", "snake_Rome in "),
        ("Rome2 is not Rome", "Rome", "Rome2 is not "),
        # letters of any alphabet, and marks on them
        ("Zoe\u0308 met Zoe", "Zoe", "Zoe\u0308 met "),
        ("Романов видел Рома", "Рома", "Романов видел "),
        ("रामायण में राम", "राम", "रामायण में "),
        # compounds come after words that stand alone
        ("Anna-Maria met Anna in", "Anna", "Anna-Maria met "),
        ("Mary O'Neill met Neill in", "Neill", "Mary O'Neill met "),
        ("Windows 8.1 follows Windows 8", "Windows 8", "Windows 8.1 follows "),
        ("The Anna-Maria of", "Anna", "The "),
        # what follows a word without being a part of it
        ("Paris's river", "Paris", ""),
        ("Paris' and Paris", "Paris", ""),
        ("In Rome, Rome", "Rome", "In "),
        ("Rome. Rome", "Rome", ""),
        ("(Rome) Rome", "Rome", "("),
        ("Adam Smith and Adam were", "Adam", ""),
        # a subject that ends in no letter has no word that could go on
        ("High!, created in", "High!", ""),
        ("High!s", "High!", ""),
        ("C++11 and C++ are", "C++", "C++11 and "),
        ("The U.S.A. or the U.S. is", "U.S.", "The U.S.A. or the "),
        # the only place there is
        ("The Beatles played", "Beatle", "The "),
        ("서울은 한국의 수도이다", "서울", ""),
        # scripts without spaces
        ("东京是日本的首都", "日本", "东京是"),
        ("A日本 and 日本", "日本", "A"),
        ("Romeo在Rome的", "Rome", "Romeo在"),
        # capitals are kept to where they can be
        ("Mariano met Ian in", "ian", "Mariano met "),
        ("Mariano met İan in", "ian", "Mar"),
        ("rome and Rome", "Rome", "rome and "),
        # white space around a subject is not counted
        ("The Romeo statue in Rome", " Rome ", "The Romeo statue in "),
    ],
)
def test_the_place_of_a_subject(text: str, subject: str, before: str) -> None:
    assert text[: find_subject(text, subject)] == before


@pytest.mark.parametrize(
    ("template", "before"),
    [
        ("Adam and {} were", "Adam and "),
        ("Adam and {}", "Adam and "),  # the prompt goes on after the template
        ("Adam and {} were born in", "Adam and "),  # the template goes on after the prompt
        ("Eve and {} were", ""),  # of another prompt
        ("Adam and {} were {}", ""),
        ("Adam and were", ""),
        ("", ""),
    ],
)
def test_the_template_says_where(template: str, before: str) -> None:
    text = "Adam and Adam were"
    assert text[: find_subject(text, "Adam", template)] == before


def test_a_template_may_put_it_inside_a_word() -> None:
    assert find_subject("The Romeo in Rome", "Rome", "The {}o in Rome") == 4


@pytest.mark.parametrize("subject", ["", " ", "Oslo", "rome"])
def test_an_absent_subject_is_an_error(subject: str) -> None:
    with pytest.raises(RecordError, match="does not occur") as caught:
        find_subject("Rome is", subject)
    assert caught.value.field == "subject"


def test_places_are_the_best_of_their_kind() -> None:
    assert places("Romeo, Rome and Rome", "Rome") == [7, 16]
    assert places("Romeo and Romeo", "Rome") == [0, 10]
    assert places("Romeo", "Oslo") == []
