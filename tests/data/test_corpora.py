import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from omegaconf import OmegaConf

from romexp.data.corpora import HfCorpus, TextCorpus
from romexp.data.download import Fetcher
from romexp.errors import ConfigError, DataError, RecordError
from romexp.stats.fit import Corpus

PARAGRAPHS = "Édouard lives\nin Zürich.\n\n\nSecond.\n \nThird\nhas\nlines.\n"


def write_parquet(path: Path, values: list[object], column: str = "text") -> Path:
    pyarrow.parquet.write_table(pyarrow.table({column: values, "id": list(range(len(values)))}), path)
    return path


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("paragraph", ["Édouard lives\nin Zürich.", "Second.", "Third\nhas\nlines."]),
        ("line", ["Édouard lives", "in Zürich.", "Second.", "Third", "has", "lines."]),
        ("file", [PARAGRAPHS]),
    ],
)
@pytest.mark.parametrize("ending", [".txt", ".txt.gz"])
def test_plain_text(tmp_path: Path, unit: str, expected: list[str], ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(PARAGRAPHS.encode()) if ending.endswith("gz") else PARAGRAPHS.encode())
    corpus = TextCorpus(path=path, unit=unit)  # type: ignore[arg-type]
    assert list(corpus.texts()) == expected
    assert list(corpus.load()) == expected
    assert isinstance(corpus.load(), Sequence)


def test_json_lines_and_parquet(tmp_path: Path) -> None:
    records = [{"text": "one", "body": "eins"}, {"text": "two", "body": "zwei"}]
    (tmp_path / "a.jsonl").write_text("\n\n".join(json.dumps(r) for r in records) + "\n")
    assert list(TextCorpus(path=tmp_path / "a.jsonl").texts()) == ["one", "two"]
    assert list(TextCorpus(path=tmp_path / "a.jsonl", field="body").texts()) == ["eins", "zwei"]
    write_parquet(tmp_path / "b.parquet", ["drei", "", "vier"], column="body")
    assert list(TextCorpus(path=tmp_path / "b.parquet", field="body").texts()) == ["drei", "vier"]
    assert list(TextCorpus(path=tmp_path, field="body").texts()) == ["eins", "zwei", "drei", "vier"]


def test_texts_are_read_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\nbroken\n')
    texts = TextCorpus(path=tmp_path / "a.jsonl").texts()
    assert next(texts) == "one"
    with pytest.raises(DataError, match=r"a\.jsonl, line 2, field text: not JSON"):
        next(texts)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"body": "x"}', r"missing; the record has body \(corpus\.field"),
        ("{}", r"missing; the record has nothing"),
        ('{"text": 3}', r"expected text, got int"),
        ('{"text": null}', r"expected text, got null"),
        ('["x"]', r"expected an object with this field, got list"),
        ('{"text": "\\ud800"}', r"half of a surrogate pair"),
        ('{"text": ' + "9" * 5000 + "}", r"not JSON"),
        ("[" * 100_000 + "]" * 100_000, r"not JSON"),
    ],
    ids=["other field", "empty", "number", "null", "list", "surrogate", "long number", "deep"],
)
def test_bad_lines_are_located_and_blamed_on_the_corpus(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 3, field text: .*" + message) as caught:
        TextCorpus(path=tmp_path / "a.jsonl").load()
    assert not isinstance(caught.value, RecordError), "an editor's caller would set a fact aside for it"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_bad_rows_are_located_and_blamed_on_the_corpus(tmp_path: Path, streaming: bool) -> None:
    path = write_parquet(tmp_path / "b.parquet", ["one", None])
    data_set = HfCorpus(path="parquet", data_files=str(path), streaming=streaming, cache_dir=tmp_path / "cache")
    corpora: list[tuple[Corpus, str]] = [
        (TextCorpus(path=path), r"b\.parquet"),
        (data_set, r"data set parquet \[train\]"),
    ]
    for corpus, name in corpora:
        with pytest.raises(DataError, match=name + r", record 1, field text: expected text, got null") as caught:
            list(corpus.load())
        assert not isinstance(caught.value, RecordError)


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(DataError, match=r"a\.csv: unknown type of text file"):
        TextCorpus(path=tmp_path / "a.csv").load()
    with pytest.raises(DataError, match="no such file or folder"):
        TextCorpus(path=tmp_path / "nothing").load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.txt.* in folder"):
        TextCorpus(path=tmp_path / "empty").load()
    (tmp_path / "latin.txt").write_bytes("Zürich".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt: cannot be read as UTF-8"):
        TextCorpus(path=tmp_path / "latin.txt").load()
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"torn\.parquet: not a readable Parquet"):
        TextCorpus(path=tmp_path / "torn.parquet").load()
    write_parquet(tmp_path / "b.parquet", ["x"])
    with pytest.raises(DataError, match=r"b\.parquet: no column 'body'; it has text, id") as caught:
        TextCorpus(path=tmp_path / "b.parquet", field="body").load()
    assert not isinstance(caught.value, RecordError)
    (tmp_path / "torn.txt.gz").write_bytes(gzip.compress(PARAGRAPHS.encode())[:-20] + b"x" * 20)
    with pytest.raises(DataError, match=r"torn\.txt\.gz: cannot be read"):
        TextCorpus(path=tmp_path / "torn.txt.gz").load()
    with pytest.raises(ConfigError, match=r"corpus\.unit: 'page'"):
        TextCorpus(path=tmp_path / "latin.txt", unit="page").load()  # type: ignore[arg-type]


def test_provenance_follows_the_content_and_the_cutting_not_the_place(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "c").mkdir(parents=True)
        (tmp_path / folder / "c" / "t.txt").write_text(PARAGRAPHS)
    first = TextCorpus(path=tmp_path / "a" / "c").provenance
    assert TextCorpus(path=tmp_path / "b" / "c").provenance == first
    assert json.loads(json.dumps(first)) == first
    assert TextCorpus(path=tmp_path / "a" / "c", unit="paragraph").provenance != first
    assert TextCorpus(path=tmp_path / "a" / "c", field="body").provenance == first  # plain text has no fields
    (tmp_path / "b" / "c" / "t.txt").write_text(PARAGRAPHS + "more")
    assert TextCorpus(path=tmp_path / "b" / "c").provenance != first


class TestTheUnitThatIsChosen:
    def write(self, folder: Path, texts: list[str], name: str = "a.txt") -> TextCorpus:
        (folder / name).write_text("".join(texts))
        return TextCorpus(path=folder)

    def test_a_file_of_lines_is_no_single_text(self, tmp_path: Path) -> None:
        corpus = self.write(tmp_path, [f"Line {i}.\n" for i in range(50)])
        assert len(corpus.load()) == 50
        assert corpus.provenance["unit"] == "line"

    def test_paragraphs_keep_their_texts_and_their_cache_key(self, tmp_path: Path) -> None:
        corpus = self.write(tmp_path, [f"Line {i}\nand more.\n\n" for i in range(10)])
        before = TextCorpus(path=tmp_path, unit="paragraph")
        assert corpus.load() == before.load()
        assert corpus.provenance == before.provenance
        assert corpus.provenance["unit"] == "paragraph", "never auto: caches are keyed by it"

    @pytest.mark.parametrize(("count", "length"), [(9, 100), (12, 4100)], ids=["few", "long"])
    def test_few_or_very_long_paragraphs_are_cut_into_lines(self, tmp_path: Path, count: int, length: int) -> None:
        corpus = self.write(tmp_path, [f"{'x' * length}\nsecond line\n\n"] * count)
        assert corpus.provenance["unit"] == "line"
        assert len(corpus.load()) == 2 * count

    def test_files_of_a_folder_are_cut_in_the_same_way(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for i in range(12):
            self.write(tmp_path, [f"Article {i}\nand more."], name=f"{i:02}.txt")
        corpus = TextCorpus(path=tmp_path)
        with caplog.at_level("INFO"):
            assert len(corpus.load()) == 12
        assert "has 12 paragraphs: each paragraph is one text" in caplog.text

    def test_records_are_records(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"text": "one\\n\\ntwo"}\n')
        corpus = TextCorpus(path=tmp_path)
        assert corpus.load() == ("one\n\ntwo",)
        assert "unit" not in corpus.provenance

    def test_a_unit_that_is_given_is_taken(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.write(tmp_path, [f"Line {i}.\n" for i in range(50)])
        with caplog.at_level("INFO"):
            assert len(TextCorpus(path=tmp_path, unit="paragraph").load()) == 1
        assert not caplog.text


def test_hub_loader_on_local_files(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", ["one", "two", "three"])
    corpus = HfCorpus(path="parquet", data_files=str(path), cache_dir=tmp_path / "cache")
    texts = corpus.load()
    assert isinstance(texts, Sequence)
    assert len(texts) == 3
    assert (texts[2], texts[-1], texts[:2]) == ("three", "three", ["one", "two"])
    assert list(corpus.texts()) == ["one", "two", "three"]
    streamed = HfCorpus(path="parquet", data_files=str(path), streaming=True, cache_dir=tmp_path / "cache").load()
    assert not isinstance(streamed, Sequence)
    assert list(streamed) == ["one", "two", "three"]
    with pytest.raises(DataError, match=r"data set parquet .*: no column 'body'; it has text, id \(corpus\.field"):
        HfCorpus(path="parquet", data_files=str(path), field="body", cache_dir=tmp_path / "cache").load()
    listed = HfCorpus(path="parquet", data_files=OmegaConf.create([str(path)]), cache_dir=tmp_path / "cache")
    assert list(listed.texts()) == ["one", "two", "three"]
    assert listed.provenance["data_files"] == [corpus.provenance["data_files"]]
    json.dumps(listed.provenance)
    before = corpus.provenance
    write_parquet(path, ["one", "two", "four"])
    assert corpus.provenance != before
    assert corpus.provenance != HfCorpus(path="parquet", data_files=str(tmp_path / "none")).provenance


def test_hub_provenance_needs_no_network() -> None:
    corpus = HfCorpus(path="wikimedia/wikipedia", name="20231101.en")
    assert corpus.provenance["name"] == "20231101.en"
    for change in ({"split": "test"}, {"revision": "abc"}, {"streaming": True}, {"field": "title"}, {"name": "x"}):
        fields = {"path": "wikimedia/wikipedia", "name": "20231101.en"} | change
        assert HfCorpus(**fields).provenance != corpus.provenance  # type: ignore[arg-type]


def test_without_a_network_the_hub_fails_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot load data set wikimedia/wikipedia 20231101\.en \[train\]") as caught:
        HfCorpus(path="wikimedia/wikipedia", name="20231101.en", cache_dir=tmp_path).load()
    assert "\n" not in str(caught.value)


def test_fetcher_takes_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "example.org" / "stats").mkdir(parents=True)
    (tmp_path / "example.org" / "stats" / "a.npz").write_bytes(b"x")
    assert Fetcher(cache_dir=tmp_path)("https://example.org/stats/a.npz").read_bytes() == b"x"
