"""`Covariance` and its cache: which source is taken, what a key depends on, who measures."""

import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from romexp.errors import ConfigError, DataError
from romexp.lm.model import LanguageModel
from romexp.stats import fit as fit_module
from romexp.stats.covariance import Covariance, ship
from romexp.stats.published import Published
from romexp.stats.second_moment import stored_layers

TEXTS = [f"The mother tongue of number {i} is {('French', 'Finnish', 'Greek')[i % 3]}." for i in range(40)]


@dataclass
class ListCorpus:
    """Texts in memory; counts how often they are asked for, and can fail on the way."""

    items: list[str]
    name: str = "list"
    loads: int = 0
    fail_after: int | None = None

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"name": self.name}

    def load(self) -> Iterable[str]:
        self.loads += 1
        return self._failing() if self.fail_after is not None else self.items

    def _failing(self) -> Iterator[str]:
        yield from self.items[: self.fail_after]
        raise KeyboardInterrupt


@pytest.fixture
def corpus() -> ListCorpus:
    return ListCorpus(TEXTS)


def test_a_second_run_takes_the_cache(tiny_gpt2: LanguageModel, corpus: ListCorpus, tmp_path: Path) -> None:
    covariance = Covariance(corpus=corpus, cache_dir=tmp_path)
    first = covariance.moments(tiny_gpt2, [2, 0])
    assert corpus.loads == 1
    told: list[int] = []
    again = covariance.moments(tiny_gpt2, [0, 2], progress=lambda done, total: told.append(done))
    assert corpus.loads == 1
    assert told == []
    assert list(first) == list(again) == [0, 2]
    for layer in (0, 2):
        assert torch.equal(first[layer].matrix, again[layer].matrix)
        assert first[layer].count == again[layer].count
    covariance.moments(tiny_gpt2, [0, 1, 2])  # one is missing: one more pass, for it alone
    assert corpus.loads == 2


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
    {"max_tokens": 5},
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


def test_an_interrupted_fit_goes_on(tiny_gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "WINDOW", 5)
    # Not indexable, so that both read the texts in their own order.
    failing = Covariance(
        corpus=ListCorpus(TEXTS, fail_after=27), sample_size=40, cache_dir=tmp_path, checkpoint_every=10
    )
    with pytest.raises(KeyboardInterrupt):
        failing.moments(tiny_gpt2, [1])
    assert [f.name.split("_")[0] for f in tmp_path.rglob("*.safetensors")] == ["unfinished"]
    told: list[int] = []
    healed = replace(failing, corpus=ListCorpus(TEXTS, fail_after=40))
    moment = healed.moments(tiny_gpt2, [1], progress=lambda done, total: told.append(done))[1]
    assert told[0] == 20
    assert moment.provenance["texts"] == 40
    assert not list(tmp_path.rglob("unfinished*"))
    undisturbed = replace(healed, cache_dir=None).moments(tiny_gpt2, [1])[1]
    assert torch.equal(moment.matrix, undisturbed.matrix)


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
        np.savez(path, **{"mom2.mom2": 6 * np.eye(64, dtype=np.float32), "mom2.count": 3})  # type: ignore[arg-type]
        return path

    moments = Covariance(published=Published(model="gpt2-xl", fetch=fetch)).moments(tiny_gpt2, [0, 1])
    assert torch.equal(moments[1].matrix, 2 * torch.eye(64))
    assert moments[0].provenance["file"].endswith("transformer.h.0.mlp.c_proj_float32_mom2_100000.npz")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"corpus": None}, "no statistics for this model; set covariance.path or covariance.corpus"),
        ({"dtype": "float16"}, "covariance.dtype: 'float16', expected one of float32, float64"),
        ({"max_tokens": 999}, r"covariance.max_tokens: 999, expected 1 to 128"),
        ({"sample_size": 0}, "covariance.sample_size: 0"),
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


OTHER_PROCESS = """
    import os, sys
    from filelock import FileLock
    lock, measured, place = sys.argv[1:]
    with FileLock(lock):
        print("held", flush=True)
        sys.stdin.readline()
        os.rename(measured, place)
"""


@pytest.mark.parametrize("killed", [False, True], ids=["finishes", "is killed"])
def test_what_another_process_measures_is_awaited_and_taken(
    tiny_gpt2: LanguageModel, corpus: ListCorpus, tmp_path: Path, killed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    covariance = Covariance(corpus=corpus, cache_dir=tmp_path)
    expected = covariance.moments(tiny_gpt2, [1])[1]
    [place] = tmp_path.rglob("*.safetensors")
    measured = place.rename(tmp_path / "measured")
    loads = corpus.loads
    command = [sys.executable, "-c", textwrap.dedent(OTHER_PROCESS), place.with_suffix(".lock"), measured, place]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
        ThreadPoolExecutor(1) as pool,
        caplog.at_level(logging.INFO),
    ):
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        ours = pool.submit(covariance.moments, tiny_gpt2, [1])
        deadline = time.monotonic() + 60
        while "waiting for another process" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not ours.done()
        assert corpus.loads == loads
        if killed:
            other.kill()
        else:
            print(file=other.stdin, flush=True)
        moment = ours.result(timeout=60)[1]
    assert corpus.loads == loads + killed
    assert torch.equal(moment.matrix, expected.matrix)


def test_jobs_at_the_same_time_measure_once(tiny_gpt2: LanguageModel, corpus: ListCorpus, tmp_path: Path) -> None:
    covariance = Covariance(corpus=corpus, cache_dir=tmp_path)
    # All with both layers: one lock keeps the others out, since hooks on one model would see each other's passes.
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda layers: covariance.moments(tiny_gpt2, layers), [[1, 2], [2, 1], [1, 2]]))
    assert corpus.loads == 1
    for layer in (1, 2):
        assert torch.equal(results[0][layer].matrix, results[2][layer].matrix)


def test_a_torn_cache_file_is_named(tiny_gpt2: LanguageModel, corpus: ListCorpus, tmp_path: Path) -> None:
    covariance = Covariance(corpus=corpus, cache_dir=tmp_path)
    covariance.moments(tiny_gpt2, [1])
    [path] = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=path.name):
        covariance.moments(tiny_gpt2, [1])


def test_fitted_moments_are_symmetric_and_can_be_solved(tiny_lm: LanguageModel, corpus: ListCorpus) -> None:
    moment = Covariance(corpus=corpus, dtype="float64").moments(tiny_lm, [1])[1]
    assert torch.equal(moment.matrix, moment.matrix.T)
    keys = torch.randn(3, moment.width, dtype=torch.float64)
    assert torch.allclose(moment.solve(keys) @ moment.matrix.double(), keys, atol=1e-5)
