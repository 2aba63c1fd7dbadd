"""Second moments of few tokens: a warning below ten times the width, an error below the width, from every source."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny
from list_corpus import TEXTS, ListCorpus

from romexp.api.methods import second_moments
from romexp.data.corpora import TextCorpus, TextList
from romexp.errors import ConfigError, DataError, RecordError
from romexp.lm.model import LanguageModel
from romexp.minifact import assets
from romexp.stats.covariance import Covariance
from romexp.stats.readers import Published
from romexp.stats.sampled import SampledTexts
from romexp.stats.second_moment import SecondMoment
from romexp.stats.token_counts import check_tokens, measured_on

WIDTH = 64
"""Of the tiny models' MLPs."""


def moment(count: int, **provenance: object) -> SecondMoment:
    return SecondMoment(matrix=torch.eye(WIDTH), count=count, provenance=provenance)


class TestTheBounds:
    @pytest.mark.parametrize("count", [0, 10 * WIDTH, 10**9], ids=["unknown", "enough", "many"])
    def test_enough_or_unknown_says_nothing(self, count: int, caplog: pytest.LogCaptureFixture) -> None:
        check_tokens({3: moment(count)})
        assert not caplog.text

    @pytest.mark.parametrize("count", [WIDTH, 10 * WIDTH - 1])
    def test_few_tokens_give_one_warning(self, count: int, caplog: pytest.LogCaptureFixture) -> None:
        check_tokens({3: moment(count), 5: moment(count), 6: moment(10_000)})
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        message = record.getMessage()
        for part in ("layers 3, 5 ", f"{count} tokens", "10 times the 64 entries of a key", "covariance=sampled"):
            assert part in message

    def test_fewer_than_the_width_are_refused(self) -> None:
        with pytest.raises(
            ConfigError, match=r"of layer 3 .* on 63 tokens .*fewer than the 64 entries of a key"
        ) as caught:
            check_tokens({3: moment(63), 5: moment(100)})
        assert "\n" not in str(caught.value)
        assert "editor.mom2_adjustment=false" in str(caught.value)

    def test_what_to_do_depends_on_the_source(self) -> None:
        files = {"corpus": {"kind": "files", "name": "a.txt", "unit": "file"}, "texts": 2, "max_tokens": 30}
        sized = {"corpus": {"kind": "datasets", "path": "wikitext"}, "texts": 5, "sample_size": 5}
        sampled = {"corpus": {"kind": "sampled"}, "texts": 5}
        for provenance, advice in (
            (files, r"of 2 texts \(a\.txt, each file one text\).*cut to 30 tokens.*covariance\.corpus\.unit=line"),
            (sized, r"\(wikitext\).*raise covariance\.sample_size"),
            (sampled, r"raise covariance\.max_tokens"),
            (sized | {"total_tokens": 5}, r"raise covariance\.max_tokens"),
            (sized | {"total_tokens": 50}, r"raise covariance\.sample_size"),
            ({"file": "/a/c.npz"}, r"\(/a/c\.npz\).*give more text, or take covariance=sampled"),
            ({"corpus": "odd", "texts": "odd"}, "texts of unknown origin"),
        ):
            with pytest.raises(ConfigError, match=advice):
                check_tokens({0: moment(5, **provenance)})


class TestEverySource:
    def test_a_text_file_as_one_text_is_no_longer_taken_in_silence(
        self, tiny_gpt2: LanguageModel, tmp_path: Path
    ) -> None:
        """128 tokens of the file, the model's context, were just enough to invert the matrix."""
        path = tmp_path / "text.txt"
        path.write_text("\n".join(TEXTS))
        found = Covariance(corpus=TextCorpus(path=path), sample_size=None).moments(tiny_gpt2, [1])[1]
        assert measured_on(found) == {
            "source": "text.txt, each line one text",
            "texts": 40,
            "tokens": 908,
            "width": WIDTH,
        }

    def test_one_text_gives_a_warning(
        self, tiny_gpt2: LanguageModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "text.txt").write_text(" ".join(TEXTS))
        with caplog.at_level(logging.INFO):
            Covariance(corpus=TextCorpus(path=tmp_path / "text.txt")).moments(tiny_gpt2, [1])
        levels = {record.levelname: record.getMessage() for record in caplog.records}
        assert "measured on 128 tokens of 1 text (text.txt" in levels["INFO"]
        assert "measured on 128 tokens of 1 text (text.txt" in levels["WARNING"]

    def test_measured_texts_are_refused_from_the_cache_too(self, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
        covariance = Covariance(corpus=ListCorpus(TEXTS[:2]), cache_dir=tmp_path)
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"tokens of 2 texts \(list\), fewer than the 64 entries"):
                covariance.moments(tiny_gpt2, [1])

    def test_files_of_statistics(
        self, tiny_gpt2: LanguageModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        np.savez(tmp_path / "c.npz", moment=np.eye(WIDTH, dtype=np.float32), count=63)
        given = Covariance(path=tmp_path / "c.npz")
        with pytest.raises(ConfigError, match=r"63 tokens \(.*c\.npz\), fewer than the 64"):
            given.moments(tiny_gpt2, [1])
        moment(63, layer=1).save(tmp_path / "ours.safetensors")
        with pytest.raises(ConfigError, match=r"63 tokens \(.*ours\.safetensors\), fewer than the 64"):
            replace(given, path=tmp_path / "ours.safetensors").moments(tiny_gpt2, [1])

        def fetch(url: str) -> Path:
            np.savez(tmp_path / "theirs.npz", **{"mom2.mom2": np.eye(WIDTH), "mom2.count": 100})  # type: ignore[arg-type]
            return tmp_path / "theirs.npz"

        assert not caplog.records
        Covariance(published=Published(model="gpt2-xl", fetch=fetch)).moments(tiny_gpt2, [1])
        assert "100 tokens" in caplog.text

    def test_texts_that_the_model_writes(self, tiny_gpt2: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
        covariance = Covariance(corpus=SampledTexts(), sample_size=None)
        found = covariance.moments(tiny_gpt2, [1])[1]
        assert found.count == 10 * WIDTH
        assert measured_on(found)["source"] == "texts that the model wrote"
        assert not [record for record in caplog.records if record.levelname == "WARNING"]
        assert replace(covariance, max_tokens=320).moments(tiny_gpt2, [1])[1].count == 320
        assert "raise covariance.max_tokens" in caplog.text

    def test_a_list_of_texts_in_python(self, tiny_gpt2: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
        few = replace(second_moments(tiny_gpt2, TEXTS[:2]), cache_dir=None)
        assert isinstance(few.corpus, TextList)
        with pytest.raises(ConfigError, match=r"of 2 texts \(a list of texts\), fewer than the 64 entries"):
            few.moments(tiny_gpt2, [1])
        replace(few, corpus=TextList(items=tuple(TEXTS[:15]))).moments(tiny_gpt2, [1])
        assert "fewer than 10 times the 64 entries" in caplog.text

    def test_what_ships_has_enough(self, minifact_lm: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
        corpus = TextCorpus(path=assets.corpus_path(), unit="line")
        shipped = Covariance(corpus=corpus, shipped=assets.second_moments_path(), sample_size=None)
        found = shipped.moments(minifact_lm, range(minifact_lm.n_layers))
        assert not caplog.records
        said = {"source": "corpus.txt, each line one text", "texts": 4000, "tokens": 114578, "width": 512}
        assert [measured_on(each) for each in found.values()] == [said] * minifact_lm.n_layers


def test_the_error_of_a_record_in_a_corpus_is_never_one_of_a_fact() -> None:
    class Broken(ListCorpus):
        def load(self) -> Iterable[str]:
            raise RecordError("expected text", file="a.jsonl", index=3, field="text")

    with pytest.raises(DataError, match=r"covariance\.corpus: a\.jsonl, record 3, field text: expected text") as caught:
        Covariance(corpus=Broken([])).moments(make_tiny("gpt2"), [1])
    assert not isinstance(caught.value, RecordError)
