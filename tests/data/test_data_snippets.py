"""Attribute snippets by (relation, target)."""

from __future__ import annotations

import pytest
from raw_records import write

from romexp.data.snippets import Snippet, Snippets
from romexp.errors import DataError


def entry(relation: str, target: str, *texts: str) -> dict[str, object]:
    samples = [{"name": f"about {text}", "text": text, "url": "x"} for text in texts]
    return {"relation_id": relation, "target_id": target, "samples": samples}


@pytest.fixture
def entries():
    return [entry("P1", "Q1", "a", "b"), entry("P1", "Q2", "c"), entry("P2", "Q1", "d"), entry("P1", "Q1", "e")]


def test_entries_of_one_key_are_joined_in_order(tmp_path, entries):
    table = Snippets(path=write(tmp_path / "s.json", entries)).load()
    assert dict(table) == {
        ("P1", "Q1"): tuple(Snippet(name=f"about {text}", text=text) for text in "abe"),
        ("P1", "Q2"): (Snippet(name="about c", text="c"),),
        ("P2", "Q1"): (Snippet(name="about d", text="d"),),
    }
    assert table.complete
    assert table.rejected == ()
    assert len(table.sha256) == 64


def test_only_what_is_needed_is_kept(tmp_path, entries):
    table = Snippets(path=write(tmp_path / "s.json", entries)).load([("P1", "Q1"), ("P9", "Q9")])
    assert list(table) == [("P1", "Q1")]
    assert [snippet.text for snippet in table["P1", "Q1"]] == ["a", "b", "e"]
    assert table.get(("P9", "Q9"), ()) == ()
    assert not table.complete


def test_needing_nothing_keeps_nothing(tmp_path, entries):
    assert dict(Snippets(path=write(tmp_path / "s.json", entries)).load([])) == {}


def test_bad_entries_and_samples_are_set_aside_and_the_rest_stays(tmp_path, entries):
    entries[1] = {"relation_id": 5, "target_id": "Q2", "samples": []}
    entries[2]["samples"].append({"name": "no text"})
    entries[2]["samples"].append("no object")
    file = write(tmp_path / "s.json", [*entries, entry("P3", "Q3")])
    table = Snippets(path=file).load()
    assert [snippet.text for snippet in table["P2", "Q1"]] == ["d"]
    assert ("P3", "Q3") not in table  # a key without a text is as good as absent
    assert [(r.file, r.index, r.field) for r in table.rejected] == [
        (str(file), 1, "relation_id"),
        (str(file), 2, "samples[1].text"),
        (str(file), 2, "samples[2].(record)"),
    ]
    assert table.rejected[1].reason == "missing"


@pytest.mark.parametrize("needed", [None, [("P1", "Q1")]])
def test_the_wrong_file_is_one_clear_error(tmp_path, needed):
    file = write(tmp_path / "s.json", [{"case_id": 1}] * 2)
    with pytest.raises(DataError, match="none of 2 entries is valid; record 0, field relation_id: missing"):
        Snippets(path=file).load(needed)
