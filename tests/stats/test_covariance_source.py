"""`Covariance`: which source is taken, what a key depends on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from list_corpus import TEXTS, ListCorpus

from romexp.errors import ConfigError, DataError
from romexp.lm.model import LanguageModel
from romexp.stats.covariance import Covariance, ship
from romexp.stats.memory import layers_that_fit
from romexp.stats.readers import Published
from romexp.stats.second_moment import stored_layers


@pytest.fixture
def corpus() -> ListCorpus:
    return ListCorpus(TEXTS)


def test_all_layers_in_one_pass_are_those_layer_by_layer(tiny_lm: LanguageModel, corpus: ListCorpus) -> None:
    covariance = Covariance(corpus=corpus, dtype="float64")
    together = covariance.moments(tiny_lm, range(tiny_lm.n_layers))
    assert corpus.loads == 1
    for layer, moment in together.items():
        alone = covariance.moments(tiny_lm, [layer])[layer]
        assert torch.allclose(moment.matrix, alone.matrix, rtol=1e-6)
        assert moment.count == alone.count


def test_provenance_says_where_it_comes_from(tiny_gpt2: LanguageModel, corpus: ListCorpus) -> None:
    provenance = Covariance(corpus=corpus, sample_size=7).moments(tiny_gpt2, [1])[1].provenance
    assert provenance["model_digest"] == tiny_gpt2.digest
    assert provenance["module"] == "transformer.h.1.mlp.c_proj"
    assert provenance["corpus"] == {"name": "list"}
    assert (provenance["sample_size"], provenance["texts"], provenance["max_tokens"]) == (7, 7, 128)
    assert set(provenance["versions"]) == {"romexp", "torch", "transformers"}


CHANGES: list[dict[str, Any]] = [
    {"sample_size": 20},
    {"sample_seed": 2},
    {"text_tokens": 5},
    {"max_tokens": 100},
    {"dtype": "float64"},
    {"corpus": ListCorpus(TEXTS, name="other")},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_the_key_changes_with_every_setting(
    tiny_gpt2: LanguageModel, corpus: ListCorpus, tmp_path: Path, change: dict[str, Any]
) -> None:
    covariance = Covariance(corpus=corpus, cache_dir=tmp_path)
    base = covariance.moments(tiny_gpt2, [1])[1]
    other = replace(covariance, **change).moments(tiny_gpt2, [1])[1]
    assert other.provenance["key"] != base.provenance["key"]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_the_key_changes_with_layer_and_model(
    tiny_gpt2: LanguageModel, corpus: ListCorpus, tiny_factory: Callable[..., LanguageModel]
) -> None:
    covariance = Covariance(corpus=corpus)
    other = tiny_factory("gpt2")
    assert covariance.ingredients(tiny_gpt2, 1) == covariance.ingredients(other, 1)
    assert covariance.ingredients(tiny_gpt2, 1) != covariance.ingredients(tiny_gpt2, 2)
    changed = tiny_factory("gpt2")
    with torch.no_grad():
        changed.parameter("transformer.h.0.mlp.c_fc.weight")[0, 0] += 1e-3
    assert covariance.ingredients(tiny_gpt2, 1) != covariance.ingredients(changed, 1)


def test_the_key_does_not_change_with_what_only_rounds(tiny_gpt2: LanguageModel, corpus: ListCorpus) -> None:
    covariance = Covariance(corpus=corpus)
    same = Covariance(corpus=corpus, batch_tokens=100, checkpoint_every=3, cache_dir="elsewhere")
    assert covariance.ingredients(tiny_gpt2, 1) == same.ingredients(tiny_gpt2, 1)


def test_stored_statistics_stay_valid(tiny_gpt2: LanguageModel, corpus: ListCorpus) -> None:
    """Users have passes of days in their caches: without a limit of tokens, the names that are hashed do not change."""
    names = set(Covariance(corpus=corpus).ingredients(tiny_gpt2, 1))
    assert names == {"model_digest", "module", "corpus", "sample_size", "sample_seed", "max_tokens", "dtype"}


def test_layers_that_come_later_are_measured_in_the_same_pass(
    tiny_gpt2: LanguageModel, corpus: ListCorpus, tmp_path: Path
) -> None:
    covariance = Covariance(corpus=corpus, cache_dir=tmp_path)
    assert sorted(covariance.moments(tiny_gpt2, [1], also=[3, 1, 99, -1, 3])) == [1]
    assert corpus.loads == 1
    later = covariance.moments(tiny_gpt2, [3])[3]
    assert corpus.loads == 1
    alone = Covariance(corpus=corpus).moments(tiny_gpt2, [3])[3]
    assert torch.allclose(later.matrix, alone.matrix, rtol=1e-5, atol=1e-7)
    asked: list[int] = []

    def also() -> list[int]:
        asked.append(1)
        return [0, 2]

    source = covariance.source(tiny_gpt2, also=also)
    loads = corpus.loads
    assert not asked
    source(1)
    assert corpus.loads == loads, "no pass is needed, so there is none for the others"
    source(2)
    source(0)
    assert corpus.loads == loads + 1


def test_later_layers_wait_if_memory_is_short(tiny_gpt2: LanguageModel) -> None:
    one = 2 * 64 * 64 * 8
    for free, expected in ((0, [1]), (one, [1]), (2 * one, [1, 3]), (100 * one, [1, 3, 2])):
        assert layers_that_fit(tiny_gpt2, [1], [3, 2], "float32", free_bytes=free) == expected
    assert layers_that_fit(tiny_gpt2, [1], [3, 2], "float64", free_bytes=2 * one) == [1]
    assert layers_that_fit(tiny_gpt2, [1], [3, 2], "float32") == [1, 3, 2]


def test_source_is_lazy_and_remembers(tiny_gpt2: LanguageModel, corpus: ListCorpus) -> None:
    second_moment = Covariance(corpus=corpus).source(tiny_gpt2)
    assert corpus.loads == 0
    first = second_moment(1)
    assert second_moment(1) is first
    assert corpus.loads == 1


def test_shipped_statistics_are_taken_for_their_model_and_settings_only(
    tiny_gpt2: LanguageModel, corpus: ListCorpus, tmp_path: Path, tiny_factory: Callable[..., LanguageModel]
) -> None:
    path = tmp_path / "shipped.safetensors"
    covariance = Covariance(corpus=corpus, sample_size=None, shipped=path)
    ship(covariance, tiny_gpt2, path)
    assert sorted(stored_layers(path)) == [0, 1, 2, 3]
    assert corpus.loads == 1
    taken = covariance.moments(tiny_gpt2, [3, 1])
    assert corpus.loads == 1
    assert torch.equal(taken[3].matrix, Covariance(corpus=corpus).moments(tiny_gpt2, [3])[3].matrix)
    loads = corpus.loads
    replace(covariance, sample_size=10).moments(tiny_gpt2, [1])
    other = tiny_factory("gpt2")
    with torch.no_grad():
        other.parameter("transformer.h.0.mlp.c_fc.weight")[0, 0] += 1
    covariance.moments(other, [1])
    assert corpus.loads == loads + 2


def test_a_given_file_wins_and_is_checked(
    tiny_gpt2: LanguageModel, corpus: ListCorpus, tmp_path: Path, tiny_factory: Callable[..., LanguageModel]
) -> None:
    np.savez(tmp_path / "id.npz", moment=np.eye(64, dtype=np.float32))
    given = Covariance(corpus=corpus, path=tmp_path / "id.npz", cache_dir=tmp_path / "cache")
    assert torch.equal(given.moments(tiny_gpt2, [2])[2].matrix, torch.eye(64))
    assert corpus.loads == 0
    with pytest.raises(ConfigError, match=r"holds one layer, 2 are wanted"):
        given.moments(tiny_gpt2, [1, 2])
    np.savez(tmp_path / "small.npz", moment=np.eye(32, dtype=np.float32))
    with pytest.raises(DataError, match=r"small\.npz.*32 × 32.*layer 2 of the model has 64 keys"):
        Covariance(path=tmp_path / "small.npz").moments(tiny_gpt2, [2])
    ours = tmp_path / "ours.safetensors"
    Covariance(corpus=corpus).moments(tiny_gpt2, [2])[2].save(ours)
    assert Covariance(path=ours).moments(tiny_gpt2, [2])[2].count > 0
    other = tiny_factory("gpt2")
    with torch.no_grad():
        other.parameter("transformer.wte.weight")[0, 0] += 1
    with pytest.raises(ConfigError, match=r"measured on tiny-gpt2 .*check_model=false"):
        Covariance(path=ours).moments(other, [2])
    assert Covariance(path=ours, check_model=False).moments(other, [2])


def test_published_statistics_are_fetched_by_module(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    def fetch(url: str) -> Path:
        path = tmp_path / url.rsplit("/", 1)[1]
        np.savez(path, **{"mom2.mom2": 1280 * np.eye(64, dtype=np.float32), "mom2.count": 640})  # type: ignore[arg-type]
        return path

    moments = Covariance(published=Published(model="gpt2-xl", fetch=fetch)).moments(tiny_gpt2, [0, 1])
    assert torch.equal(moments[1].matrix, 2 * torch.eye(64))
    assert moments[0].provenance["file"].endswith("transformer.h.0.mlp.c_proj_float32_mom2_100000.npz")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"corpus": None}, "no statistics for this model; set covariance.path or covariance.corpus"),
        ({"dtype": "float16"}, "covariance.dtype: 'float16', expected one of float32, float64"),
        ({"text_tokens": 999}, r"covariance.text_tokens: 999, expected 1 to 128"),
        ({"max_tokens": 0}, r"covariance.max_tokens: expected a number of at least 1"),
        ({"max_tokens": 63}, r"on 63 tokens of 3 texts .*raise covariance.max_tokens"),
        ({"sample_size": 0}, "covariance.sample_size: expected a number of at least 1"),
        ({"corpus": ListCorpus([""])}, "no text with any tokens"),
        ({"path": "/nothing/here"}, "covariance.path: no file or folder /nothing/here"),
    ],
)
def test_bad_fields_are_named(
    tiny_gpt2: LanguageModel, corpus: ListCorpus, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Covariance(**({"corpus": corpus} | fields)).moments(tiny_gpt2, [1])


def test_a_layer_the_model_lacks_is_named(tiny_gpt2: LanguageModel, corpus: ListCorpus) -> None:
    with pytest.raises(ConfigError, match=r"layer \[4\]: tiny-gpt2 has layers 0 to 3"):
        Covariance(corpus=corpus).moments(tiny_gpt2, [1, 4])


def test_fitted_moments_are_symmetric_and_can_be_solved(tiny_lm: LanguageModel, corpus: ListCorpus) -> None:
    moment = Covariance(corpus=corpus, dtype="float64").moments(tiny_lm, [1])[1]
    assert torch.equal(moment.matrix, moment.matrix.T)
    keys = torch.randn(3, moment.width, dtype=torch.float64)
    assert torch.allclose(moment.solve(keys) @ moment.matrix.double(), keys, atol=1e-5)


def test_layers_that_are_prepared_together_take_one_pass(
    tiny_gpt2: LanguageModel, corpus: ListCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[int]] = []
    covariance = Covariance(corpus=corpus)
    real = Covariance._fit

    def counted(self: Covariance, lm: LanguageModel, layers: list[int], *rest: object) -> object:
        passes.append(list(layers))
        return real(self, lm, layers, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Covariance, "_fit", counted)
    source = covariance.source(tiny_gpt2)
    source.prepare([1, 2])
    assert source(1) is source(1)
    assert source(2).provenance["layer"] == 2
    source.prepare([1, 3])
    assert passes == [[1, 2], [3]]


def test_one_matrix_is_not_taken_for_several_layers(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    """A file with a matrix for each layer is."""
    one, many = torch.eye(64).numpy(), {f"layer{layer}": (layer * torch.eye(64)).numpy() for layer in (1, 2)}
    np.savez(tmp_path / "one.npz", moment=one)
    np.savez(tmp_path / "many.npz", tokens=10**6, **many)
    with pytest.raises(ConfigError, match=r"holds one layer, 2 are wanted"):
        Covariance(path=tmp_path / "one.npz").source(tiny_gpt2).prepare([1, 2])
    source = Covariance(path=tmp_path / "many.npz").source(tiny_gpt2)
    source.prepare([1, 2])
    assert [(float(source(layer).matrix[0, 0]), source(layer).count) for layer in (1, 2)] == [(1, 10**6), (2, 10**6)]
