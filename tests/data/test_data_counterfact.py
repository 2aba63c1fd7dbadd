"""CounterFact files become cases; bad records are set aside with file, index, field and reason."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from file_server import serve
from omegaconf import OmegaConf
from raw_records import counterfact_record, spoil, write

from romexp.data.counterfact import CounterFact
from romexp.data.download import RemoteFile
from romexp.errors import ConfigError, DataError
from romexp.facts import Case, EditRequest


@pytest.fixture
def records():
    return [counterfact_record(case_id) for case_id in (3, 7, 8, 20)]


def test_fields(tmp_path, records):
    file = write(tmp_path / "cf.json", records)
    loaded = CounterFact(path=file).load()
    assert loaded.items[1] == Case(
        case_id=7,
        request=EditRequest(
            subject="Danielle Darrieux 7",
            prompt="The mother tongue of {} is",
            target_new="English",
            target_true="French",
            relation_id="P103",
            target_new_id="Q1860",
        ),
        paraphrase_prompts=("It rained. Danielle Darrieux 7, a native", "Spoken by her is"),
        neighborhood_prompts=("Léon Blum is a native speaker of",),
        generation_prompts=("She was born in", "She was born in"),
    )
    assert [case.case_id for case in loaded.items] == [3, 7, 8, 20]
    assert (loaded.name, loaded.path, loaded.rejected) == ("counterfact", str(file), ())
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


BAD = [
    ("case_id", ..., "case_id", "missing"),
    ("case_id", "7", "case_id", "expected a valid integer, not '7'"),
    ("case_id", True, "case_id", "expected a valid integer"),
    ("case_id", -1, "case_id", "expected greater than or equal to 0"),
    ("case_id", 3, "case_id", "id 3 is already that of record 0"),
    ("requested_rewrite", ..., "requested_rewrite", "missing"),
    ("requested_rewrite", 5, "requested_rewrite", "expected an object, not 5"),
    ("requested_rewrite.prompt", "The mother tongue is", "requested_rewrite.prompt", "exactly one {} .* found 0"),
    ("requested_rewrite.prompt", "{} and {} speak", "requested_rewrite.prompt", "exactly one {} .* found 2"),
    ("requested_rewrite.prompt", "{} speaks ", "requested_rewrite.prompt", "does not end in white space"),
    ("requested_rewrite.subject", "", "requested_rewrite.subject", "expected some text, not ''"),
    ("requested_rewrite.subject", "  ", "requested_rewrite.subject", "expected some text"),
    ("requested_rewrite.subject", ..., "requested_rewrite.subject", "missing"),
    ("requested_rewrite.target_new.str", "", "requested_rewrite.target_new.str", "begin with white space"),
    ("requested_rewrite.target_new.str", " English", "requested_rewrite.target_new.str", "begin with white space"),
    ("requested_rewrite.target_true.str", None, "requested_rewrite.target_true.str", "expected a valid string"),
    ("requested_rewrite.target_new.str", "French", "requested_rewrite.target_new.str", "another answer"),
    ("paraphrase_prompts", ..., "paraphrase_prompts", "missing"),
    ("paraphrase_prompts", "one text", "paraphrase_prompts", "expected a valid list"),
    ("neighborhood_prompts", ["good", 5], "neighborhood_prompts[1]", "expected a valid string, not 5"),
    ("attribute_prompts", [""], "attribute_prompts[0]", "white space"),
    ("generation_prompts", ["ends in space "], "generation_prompts[0]", "white space"),
]


@pytest.mark.parametrize(("spoilt", "value", "field", "reason"), BAD)
def test_a_bad_record_is_set_aside_and_the_others_stay(tmp_path, records, spoilt, value, field, reason):
    spoil(records[1], spoilt, value)
    file = write(tmp_path / "cf.json", records)
    loaded = CounterFact(path=file).load()
    assert [case.case_id for case in loaded.items] == [3, 8, 20]
    (rejected,) = loaded.rejected
    assert (rejected.file, rejected.index, rejected.field) == (str(file), 1, field)
    assert re.search(reason.replace("{}", r"\{\}"), rejected.reason), rejected.reason


def test_several_faults_of_one_record_are_one_rejection(tmp_path, records):
    spoil(records[1], "requested_rewrite.subject", "")
    spoil(records[1], "paraphrase_prompts", [5])
    (rejected,) = CounterFact(path=write(tmp_path / "cf.json", records)).load().rejected
    assert rejected.field == "requested_rewrite.subject"
    assert "paraphrase_prompts[0]: expected a valid string" in rejected.reason


def test_records_that_are_no_objects(tmp_path, records):
    loaded = CounterFact(path=write(tmp_path / "cf.json", [*records, "text", None, 5])).load()
    assert [rejected.index for rejected in loaded.rejected] == [4, 5, 6]
    assert len(loaded.items) == 4


def test_an_id_is_judged_by_the_whole_file_whatever_is_selected(tmp_path):
    records = [counterfact_record(i) for i in (0, 1, 0, 2, 1)]
    file = write(tmp_path / "cf.json", records)
    whole = CounterFact(path=file).load()
    parts = [CounterFact(path=file, shard=f"{i}/3").load() for i in (1, 2, 3)]
    assert [r.index for r in whole.rejected] == [2, 4]
    assert sorted(r.index for part in parts for r in part.rejected) == [2, 4]
    assert sorted(case.case_id for part in parts for case in part.items) == [0, 1, 2]


def test_selection_counts_records_of_the_file(tmp_path, records):
    spoil(records[1], "requested_rewrite.subject", "")
    file = write(tmp_path / "cf.json", records)

    def ids(**fields):
        loaded = CounterFact(path=file, **fields).load()
        return [case.case_id for case in loaded.items], [rejected.index for rejected in loaded.rejected]

    assert ids(limit=2) == ([3], [1])
    assert ids(offset=2) == ([8, 20], [])
    assert ids(case_ids=[20, 7]) == ([20], [1])
    assert ids(shard="1/2") == ([3, 8], [])


def test_case_ids_may_come_from_hydra(tmp_path, records):
    config = OmegaConf.create({"case_ids": [8, 3]})
    loaded = CounterFact(path=write(tmp_path / "cf.json", records), case_ids=config.case_ids).load()
    assert [case.case_id for case in loaded.items] == [3, 8]


def test_the_wrong_file_is_one_clear_error(tmp_path):
    file = write(tmp_path / "zsre.json", [{"src": "?"}] * 3)
    with pytest.raises(DataError, match="none of 3 records is valid; record 0, field case_id: missing"):
        CounterFact(path=file).load()
    with pytest.raises(DataError, match="none of 3 records is valid"):
        CounterFact(path=file, limit=1).load()


def test_missing_local_file(tmp_path):
    with pytest.raises(DataError, match=r"none.json: no such file"):
        CounterFact(path=tmp_path / "none.json").load()


def test_nothing_to_read_from():
    with pytest.raises(ConfigError, match="path"):
        CounterFact(remote=None).load()


def test_without_a_path_the_published_file_is_fetched_and_cached(tmp_path, records):
    content = json.dumps(records).encode()
    with serve(content) as server:
        data = CounterFact(cache_dir=tmp_path, remote=RemoteFile(url=server.url, size=len(content)))
        first, second = data.load(), data.load()
        assert len(server.asked) == 1
    assert first == second
    assert len(first.items) == 4
    assert first.path.startswith(str(tmp_path))


def test_the_published_file_is_the_one_of_the_paper():
    remote = CounterFact().remote
    assert remote is not None
    assert remote.url == "https://rome.baulab.info/data/dsets/counterfact.json"
    assert remote.size == 45_108_470
    assert remote.sha256 is not None
    assert (remote.sha256[:8], remote.sha256[-5:], len(remote.sha256)) == ("d0170561", "9fc6f", 64)


@pytest.mark.parametrize(("name", "count"), [("data/counterfact_rebuilt_2000.json", 2000), ("golden/records.json", 20)])
def test_reference_material_loads_without_loss(shared, name, count):
    loaded = CounterFact(path=shared / name).load()
    assert (len(loaded.items), loaded.rejected) == (count, ())


def test_white_space_after_a_target_is_left_out(tmp_path):
    records = [counterfact_record(0), counterfact_record(1)]
    spoil(records[0], "requested_rewrite.target_new.str", "English \n")
    spoil(records[1], "requested_rewrite.target_new.str", "French ")  # the true one, once it is cleaned
    loaded = CounterFact(path=write(tmp_path / "counterfact.json", records)).load()
    assert [case.request.target_new for case in loaded.items] == ["English"]
    assert "another answer than target_true" in loaded.rejected[0].reason
