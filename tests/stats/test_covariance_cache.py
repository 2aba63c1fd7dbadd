"""The cache of `Covariance`: who measures, and what a killed or torn one leaves."""

import json
import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from list_corpus import TEXTS, ListCorpus

from romexp.errors import DataError
from romexp.lm.model import LanguageModel
from romexp.lm.tensor_files import read_tensors, write_tensors
from romexp.stats import fit as fit_module
from romexp.stats.covariance import Covariance
from romexp.stats.second_moment import FORMAT, load_moments


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


def test_one_changed_bit_in_the_cache_is_found(tiny_gpt2: LanguageModel, corpus: ListCorpus, tmp_path: Path) -> None:
    covariance = Covariance(corpus=corpus, cache_dir=tmp_path)
    whole = covariance.moments(tiny_gpt2, [1])[1]
    [path] = tmp_path.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"checksum differs.*delete this file of the cache"):
        covariance.moments(tiny_gpt2, [1])
    path.unlink()
    assert torch.equal(covariance.moments(tiny_gpt2, [1])[1].matrix, whole.matrix)


def _rewritten(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    """Write an unfinished pass again, with right checksums, after a change of its tensors and its header."""
    metadata, tensors = read_tensors(path)
    header = json.loads(metadata["romexp"])
    change(tensors, header)
    write_tensors(path, tensors, {"romexp": json.dumps(header)})


CHANGES: dict[str, Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]] = {
    "one layer's sum is missing": lambda tensors, header: tensors.pop("2.triangle"),
    "a sum of another type": lambda tensors, header: tensors.update({"2.triangle": tensors["2.triangle"].double()}),
    "a sum of another size": lambda tensors, header: tensors.update({"2.triangle": tensors["2.triangle"][:-1]}),
    "no number of texts": lambda tensors, header: header.pop("done"),
}


@pytest.mark.parametrize("change", [*CHANGES, "torn"])
def test_a_damaged_unfinished_pass_begins_at_the_first_text(
    tiny_gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """No layer's sum is taken alone: then its texts would count twice."""
    monkeypatch.setattr(fit_module, "WINDOW", 5)
    failing = Covariance(
        corpus=ListCorpus(TEXTS, fail_after=27), sample_size=40, cache_dir=tmp_path, checkpoint_every=10
    )
    with pytest.raises(KeyboardInterrupt):
        failing.moments(tiny_gpt2, [1, 2])
    [path] = tmp_path.rglob("unfinished*.safetensors")
    if change == "torn":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        _rewritten(path, CHANGES[change])
    told: list[int] = []
    healed = replace(failing, corpus=ListCorpus(TEXTS, fail_after=40))
    moments = healed.moments(tiny_gpt2, [1, 2], progress=lambda done, total: told.append(done))
    assert told[0] == 0
    undisturbed = replace(healed, cache_dir=None).moments(tiny_gpt2, [1, 2])
    assert all(torch.equal(moments[layer].matrix, undisturbed[layer].matrix) for layer in (1, 2))
    assert moments[1].count == undisturbed[1].count


@pytest.mark.parametrize(
    "header",
    [[], 5, {"format": FORMAT}, {"format": FORMAT, "layers": []}, {"format": FORMAT, "layers": {"1": {}}}]
    + [{"format": FORMAT, "layers": {"1": {"width": 64, "count": 9, "provenance": p}}} for p in ([], {})],
)
def test_metadata_of_something_else_are_named(tmp_path: Path, header: object) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"layers.1": torch.zeros(3)}, {"romexp": json.dumps(header)})
    with pytest.raises(DataError, match=r"x\.safetensors"):
        load_moments(path)
