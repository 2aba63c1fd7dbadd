"""One odd record never costs the others: it is set aside with a short reason, in every data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_records import counterfact_record, known_record, zsre_record

from romexp.data.corpora import TextCorpus
from romexp.data.counterfact import CounterFact
from romexp.data.known import KnownFacts
from romexp.data.snippets import Snippets
from romexp.data.zsre import ZsRE
from romexp.errors import DataError

SETS: dict[str, tuple[Any, Callable[[int], dict[str, Any]], str, str]] = {
    "counterfact": (CounterFact, counterfact_record, "case_id", "paraphrase_prompts"),
    "known": (KnownFacts, known_record, "known_id", "subject"),
    "zsre": (ZsRE, zsre_record, "", "subject"),
}
DEEP = "[" * 5000 + '"]}"' + "]" * 5000
IDS = ["1e400", "NaN", "-1", "18446744073709551616", "9223372036854775808", "9" * 4000, "9" * 5000, "true", "1.5", DEEP]


def _file(path: Path, good: list[dict[str, Any]], odd: str) -> Path:
    """A list in which the odd record, as JSON text, stands at place 1."""
    records = [json.dumps(record) for record in good]
    path.write_text("[" + ",".join([records[0], odd, *records[1:]]) + "]", encoding="utf-8")
    return path


def _with(record: dict[str, Any], field: str, value: str) -> str:
    return json.dumps(record | {field: "@"}).replace('"@"', value, 1)


def _assert_set_aside(loaded: Any, field: str) -> None:
    assert len(loaded.items) == 2
    (rejected,) = loaded.rejected
    assert rejected.index == 1
    assert rejected.field.startswith(field)
    assert len(rejected.reason) < 400
    assert "\n" not in rejected.reason


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("value", [DEEP, "9" * 5000, "NaN", '"\\ud800"', '{"a": "' + "x" * 100_000 + '"}'])
def test_an_odd_value_in_a_field(tmp_path: Path, kind: str, value: str) -> None:
    source, record, _, field = SETS[kind]
    path = _file(tmp_path / "a.json", [record(0), record(2)], _with(record(1), field, value))
    nested = value == DEEP
    _assert_set_aside(source(path=path).load(), "(record)" if nested else field)


@pytest.mark.parametrize("kind", ["counterfact", "known"])
def test_a_whole_number_with_a_point_is_an_id(tmp_path: Path, kind: str) -> None:
    """So tables write whole numbers in a column that has gaps."""
    source, record, field, _ = SETS[kind]
    path = _file(tmp_path / "a.json", [record(0), record(2)], _with(record(1), field, "1.0"))
    assert [getattr(item, field) for item in source(path=path).load().items] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["counterfact", "known"])
@pytest.mark.parametrize("value", IDS)
def test_an_odd_id(tmp_path: Path, kind: str, value: str) -> None:
    source, record, field, _ = SETS[kind]
    path = _file(tmp_path / "a.json", [record(0), record(2)], _with(record(1), field, value))
    _assert_set_aside(source(path=path).load(), "(record)" if value == DEEP else field)


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("value", ["9" * 5000, "1e400", '"\\ud800"', "[" * 400 + "]" * 400])
def test_an_odd_value_that_nothing_reads_is_no_fault(tmp_path: Path, kind: str, value: str) -> None:
    source, record, _, _ = SETS[kind]
    path = _file(tmp_path / "a.json", [record(0), record(2)], _with(record(1), "extra", value))
    assert len(source(path=path).load().items) == 3


def test_the_largest_id_is_one(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.json", [counterfact_record(0)], json.dumps(counterfact_record(2**63 - 1)))
    assert [case.case_id for case in CounterFact(path=path).load().items] == [0, 2**63 - 1]


def test_long_texts_make_short_reasons(tmp_path: Path) -> None:
    long = "x" * 100_000
    questions = _file(tmp_path / "z.json", [zsre_record(0), zsre_record(2)], _with(zsre_record(1), "src", f'"{long}"'))
    _assert_set_aside(ZsRE(path=questions).load(), "src")
    facts = _file(
        tmp_path / "k.json", [known_record(0), known_record(2)], _with(known_record(1), "prompt", f'"{long}"')
    )
    _assert_set_aside(KnownFacts(path=facts).load(), "prompt")


def test_snippets(tmp_path: Path) -> None:
    entries = [{"relation_id": "P1", "target_id": f"Q{i}", "samples": [{"name": "A", "text": "B"}]} for i in range(2)]
    table = Snippets(path=_file(tmp_path / "s.json", entries, _with(entries[0], "samples", DEEP))).load()
    assert len(table) == 2
    assert [(entry.index, "nested too deeply" in entry.reason) for entry in table.rejected] == [(1, True)]


@pytest.mark.parametrize(
    "line",
    [b"[" * 5000 + b"]" * 5000, b'{"text": ' + b"9" * 5000 + b"}", b'{"text": "\\ud800"}', b'{"text": 1e400}', b"{}"],
)
def test_a_corpus_names_file_and_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"corpus\.jsonl, line 2, field text: ") as caught:
        TextCorpus(path=path).load()
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_column_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xe9"))
    pq.write_table(pa.table({"text": bad}), tmp_path / "corpus.parquet")
    with pytest.raises(DataError, match=r"corpus\.parquet, from record 1, field text: not UTF-8"):
        TextCorpus(path=tmp_path / "corpus.parquet").load()
