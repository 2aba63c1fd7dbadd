"""The same records in every format; damaged files end in one line, damaged records are set aside."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from raw_records import counterfact_record, known_record, zsre_record

from romexp.data import hub_records
from romexp.data.counterfact import CounterFact
from romexp.data.facts_file import FactsFile
from romexp.data.hub_records import fetch_records, parse_address
from romexp.data.known import KnownFacts
from romexp.data.record_stream import stream_records
from romexp.data.zsre import ZsRE
from romexp.errors import ConfigError, DataError
from romexp.files import LARGE_FILE, kept_sha256

FORMATS = ["json", "jsonl", "csv", "tsv", "parquet"]


def save(records: list[dict[str, Any]], folder: Path, ending: str) -> Path:
    kind = ending.removesuffix(".gz")
    file = folder / f"records.{kind}"
    if kind == "json":
        file.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8-sig")
    elif kind == "parquet":
        pd.DataFrame(records).to_parquet(file)
    else:
        pd.DataFrame(records).to_csv(file, sep="\t" if kind == "tsv" else ",", index=False)
    if ending.endswith(".gz"):
        packed = folder / f"{file.name}.gz"
        packed.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
        return packed
    return file


@pytest.mark.parametrize("ending", [*FORMATS, *(f"{kind}.gz" for kind in FORMATS)])
@pytest.mark.parametrize(
    ("data", "make"),
    [(CounterFact, counterfact_record), (KnownFacts, known_record), (ZsRE, zsre_record), (FactsFile, zsre_record)],
)
def test_every_reader_reads_every_format(tmp_path: Path, data: Any, make: Any, ending: str) -> None:
    records = [make(number) for number in (3, 7, 8)]
    expected = data(path=save(records, tmp_path, "json")).load()
    loaded = data(path=save(records, tmp_path, ending)).load()
    assert (loaded.items, loaded.rejected) == (expected.items, ())
    assert len(loaded.items) == 3


def test_a_table_as_people_write_it(tmp_path: Path) -> None:
    file = tmp_path / "facts.csv"
    file.write_bytes(
        "\ufeffSubject;Prompt;Target new;target_true;paraphrase_2;paraphrase_1;neighbours\r\n"
        'Paris;"Paris is the\u00a0capital, of";Italy;France;b;a;Lyon is in | Nice is in\r\n'
        ";;;;;;\r\n"
        "Berlin;{} lies in;Spain\r\n"
        "Bonn;{} lies in;Spain;;;;;more\r\n".encode()
    )
    loaded = FactsFile(path=file).load()
    paris, berlin = loaded.items
    assert (paris.request.prompt, paris.paraphrase_prompts) == ("{} is the\u00a0capital, of", ("a", "b"))
    assert paris.neighborhood_prompts == ("Lyon is in", "Nice is in")
    assert (berlin.case_id, berlin.request.target_true) == (1, "")
    assert [rejected.text for rejected in loaded.rejected] == [
        "record 2, field (record): expected an object, not a row of 8 cells under a header of 7"
    ]


def test_a_line_that_is_not_json_costs_no_other_line(tmp_path: Path) -> None:
    file = save([counterfact_record(i) for i in range(3)], tmp_path, "jsonl")
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n\n".join([lines[0], lines[1][:50], lines[2]]), encoding="utf-8")
    loaded = CounterFact(path=file).load()
    assert [case.case_id for case in loaded.items] == [0, 2]
    assert "record 1, field (record): expected an object, not a line that is not JSON" in loaded.rejected[0].text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{\n"a": 1}', "expected a JSON list"),
        ("a.csv", b"", "names of the columns"),
        ("a.csv", b"a,a\n1,2\n", "column 'a' is there twice"),
        ("a.csv", b'a,b\n1,"2\n', "record 0: not a row of a table"),
        ("a.csv", b"a,b\n1,\xff\n", "not UTF-8"),
        ("a.parquet", b"PAR1 and nothing", "not a readable Parquet file"),
        ("a.parquet", b"text", "not a readable Parquet file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9], "cannot be read"),
        ("a.json.gz", gzip.compress(b"[" + b" " * (1 << 25), mtime=0), "refused, because"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(stream_records(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_addresses_of_the_hub() -> None:
    address = parse_address("hf://owner/name@v1/config:test")
    assert (address.name, address.revision, address.configuration, address.split) == (
        "owner/name", "v1", "config", "test",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"expected hf://owner/name.*not hf://a b"):
        parse_address("hf://a b")


def test_a_data_set_of_the_hub_is_kept_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []
    rows = datasets.Dataset.from_list([counterfact_record(i) for i in range(3)])

    def load(*names: Any, **options: Any) -> Any:
        asked.append((names, options))
        return datasets.DatasetDict(train=rows) if options["split"] is None else rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr("romexp.hub._why_unreachable", lambda: "")
    for data in (CounterFact, FactsFile, CounterFact):
        loaded = data(path="hf://azhx/counterfact", cache_dir=tmp_path).load()
        assert [case.case_id for case in loaded.items] == [0, 1, 2]
    assert asked == [(("azhx/counterfact", None), {"split": None, "revision": None})]
    assert fetch_records("hf://azhx/counterfact:train", tmp_path).name == "train.jsonl"
    assert len(asked) == 2

    def fail(*names: Any, **options: Any) -> Any:
        raise ValueError("Unknown split\nmore")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"hf://azhx/counterfact:x: cannot be loaded \(Unknown split\); without"):
        hub_records.fetch_records("hf://azhx/counterfact:x", tmp_path)


def test_the_digest_of_a_large_file_is_kept_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"a" * LARGE_FILE)
    digest = kept_sha256(file, tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "digests" / "files").iterdir()
    kept.write_text("0" * 64)
    assert kept_sha256(file, tmp_path / "cache") == "0" * 64  # it was not read again
    file.write_bytes(b"b" * LARGE_FILE)
    assert kept_sha256(file, tmp_path / "cache") not in (digest, "0" * 64)
