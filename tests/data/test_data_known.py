"""Known facts for tracing."""

from __future__ import annotations

import re

import pytest
from raw_records import known_record, spoil, write

from romexp.data.known import KnownFacts
from romexp.facts import KnownFact


@pytest.fixture
def records():
    return [known_record(known_id) for known_id in (0, 1, 5)]


def test_fields(tmp_path, records):
    loaded = KnownFacts(path=write(tmp_path / "known.json", records)).load()
    assert loaded.items[2] == KnownFact(
        known_id=5,
        subject="Vinson Massif",
        attribute="Antarctica",
        prompt="Vinson Massif is located in the continent of",
        template="{} is located in the continent",
        prediction=" of Antarctica. It is",
        relation_id="P30",
    )


@pytest.mark.parametrize(
    ("spoilt", "value", "field", "reason"),
    [
        ("known_id", 0, "known_id", "id 0 is already that of record 0"),
        ("known_id", ..., "known_id", "missing"),
        ("subject", "Mount Vinson", "prompt", "expected the subject 'Mount Vinson' in"),
        ("subject", " ", "subject", "expected some text"),
        ("attribute", " Antarctica", "attribute", "begin with white space"),
        ("prompt", "Vinson Massif is ", "prompt", "end in white space"),
    ],
)
def test_a_bad_record_is_set_aside(tmp_path, records, spoilt, value, field, reason):
    spoil(records[1], spoilt, value)
    file = write(tmp_path / "known.json", records)
    loaded = KnownFacts(path=file).load()
    assert [fact.known_id for fact in loaded.items] == [0, 5]
    (rejected,) = loaded.rejected
    assert (rejected.file, rejected.index, rejected.field) == (str(file), 1, field)
    assert re.search(reason, rejected.reason), rejected.reason


def test_case_ids_are_known_ids(tmp_path, records):
    loaded = KnownFacts(path=write(tmp_path / "known.json", records), case_ids=[5]).load()
    assert [fact.known_id for fact in loaded.items] == [5]


def test_optional_fields_may_be_missing(tmp_path, records):
    for name in ("template", "prediction", "relation_id"):
        spoil(records[0], name, ...)
    loaded = KnownFacts(path=write(tmp_path / "known.json", records)).load()
    assert (loaded.items[0].template, loaded.items[0].prediction) == ("", "")


def test_reference_material_loads_without_loss(shared):
    loaded = KnownFacts(path=shared / "data" / "known_1000.json").load()
    assert (len(loaded.items), loaded.rejected) == (1209, ())
    assert [fact.known_id for fact in loaded.items] == list(range(1209))


def test_white_space_after_an_attribute_and_around_a_subject(tmp_path, records):
    records[0] |= {"attribute": "Antarctica ", "subject": " Vinson Massif "}
    loaded = KnownFacts(path=write(tmp_path / "known.json", records)).load()
    assert not loaded.rejected
    assert loaded.items[0].attribute == "Antarctica"
