"""A bad record of a corpus ends a run in one line that names the corpus; good ones stand in the run's manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import Command, Done

from romexp.minifact import assets
from romexp.results.folder import RunFolder

LINES = [f"Anna {i} and Bob play the violin in Paris {i}." for i in range(60)]
BLAMED = "corpus.jsonl, line 4, field text: missing; the record has x"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Its fourth record has no text."""
    records = [{"text": line} for line in LINES]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in [*records[:3], {"x": 1}, *records[3:]]))
    return path


def assert_blamed(done: Done) -> None:
    assert done.status == 2, done.err
    (line,) = (line for line in done.err.splitlines() if line.startswith("romexp: error"))
    assert line.startswith(f"romexp: error: {BLAMED}") or f"/{BLAMED}" in line
    assert "set aside" not in done.err


def test_of_second_moments(romexp: Command, tiny: list[str], corpus: Path) -> None:
    text = ["covariance=text", f"covariance.corpus.path={corpus}", f"cache_dir={corpus.parent}/cache"]
    assert_blamed(romexp(*tiny, *text, "editor.mom2_adjustment=true", "dataset.limit=2"))
    assert_blamed(romexp(*tiny, *text, "task=covariance"))


def test_of_noise(romexp: Command, tiny: list[str], corpus: Path) -> None:
    model = [given for given in tiny if given.startswith(("model", "tracker", "cache_dir"))]
    noise = ["tracer.noise=m", "corpus@task.corpus=text", f"task.corpus.path={corpus}"]
    assert_blamed(romexp("task=trace", *model, *noise, f"dataset.path={assets.known_path()}", "dataset.limit=2"))


@pytest.mark.parametrize("source", ["locality", "self_sampled"])
def test_of_training(romexp: Command, tiny: list[str], corpus: Path, records_file: Path, source: str) -> None:
    (corpus.parent / "good.txt").write_text("\n".join(LINES))
    model = [given for given in tiny if given.startswith(("model", "tracker", "cache_dir"))]
    own = ["dataset=counterfact", f"dataset.path={records_file}", f"task.locality.corpus.path={corpus}"]
    if source == "self_sampled":
        own = ["task/edits=self_sampled", f"task.edits.corpus.path={corpus}", "task.edits.count=6"]
        own += [f"task.locality.corpus.path={corpus.parent}/good.txt", "task.edits.context_tokens=[3,5]"]
    assert_blamed(romexp("task=train", "editor=mend", "editor.rank=4", "task.training.steps=1", *model, *own))


def test_what_second_moments_were_measured_on_is_said_everywhere(
    romexp: Command, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("\n".join(LINES))
    text = ["covariance=text", f"covariance.corpus.path={tmp_path}/text.txt", f"cache_dir={tmp_path}/cache"]
    done = romexp(*tiny, *text, "task=covariance", "task.layers=[1,2]", "output_dir=moments")
    assert done.status == 0, done.err
    folder = RunFolder(tmp_path / "moments")
    summary, manifest = folder.read("summary") or {}, folder.read("manifest") or {}
    tokens = summary["1"]["tokens"]
    assert tokens > 640
    said = {"source": "text.txt, each line one text", "texts": 60, "tokens": tokens, "width": 64}
    assert manifest["second_moments"] == {"1": said, "2": said}
    assert summary["1"].items() > said.items()
    assert "measured on: text.txt, each line one text" in done.out
    assert f"{tokens:,}" in done.out
    assert f"second moment of layers 1, 2: measured on {tokens:,} tokens of 60 texts (text.txt" in done.err

    edit = [*tiny, *text, "editor.mom2_adjustment=true", "dataset.limit=1"]
    assert romexp(*edit, "output_dir=edit").status == 0
    assert (RunFolder(tmp_path / "edit").read("manifest") or {})["second_moments"] == {"1": said}
    assert romexp(*tiny, *text, "dataset.limit=1", "output_dir=without").status == 0
    assert "second_moments" not in (RunFolder(tmp_path / "without").read("manifest") or {}), "none was used"

    (tmp_path / "text.txt").write_text("\n".join(LINES[:2]))
    few = romexp(*edit, "output_dir=few")
    assert few.status == 2
    assert "of 2 texts (text.txt, each line one text), fewer than the 64 entries of a key" in few.err
