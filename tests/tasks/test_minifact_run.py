"""The command on the shipped model: the paper's picture, measured (paper Table 4), and question answering."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import Command

from romexp.minifact.assets import model_dir

pytestmark = pytest.mark.skipif(not (model_dir() / "model.safetensors").is_file(), reason="no shipped model")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def summary(romexp: Command, cache: Path, *arguments: str) -> dict[str, dict[str, float]]:
    """Means by side and metric."""
    done = romexp(*arguments, "model.device=cpu", "tracker=none", f"cache_dir={cache}", "output_dir=run")
    assert done.status == 0, done.err
    found = json.loads(Path("run", "summary.json").read_text())
    return {side: {name: entry["mean"] for name, entry in found[side].items()} for side in ("pre", "post")}


@pytest.mark.parametrize(
    ("editor", "at_least", "at_most"),
    [
        ("rome", {"ES": 95, "PS": 85, "NS": 97}, {}),
        ("ft", {"ES": 95, "PS": 85}, {"NS": 95}),
        ("ft_l", {"ES": 85, "NS": 85}, {"NS": 99}),
    ],
)
def test_rome_alone_is_general_and_specific(
    romexp: Command, cache: Path, editor: str, at_least: dict[str, float], at_most: dict[str, float]
) -> None:
    measured = summary(romexp, cache, f"editor={editor}", "dataset.limit=20", "evaluator.generation=off")
    assert measured["pre"]["ES"] <= 5
    assert measured["pre"]["NS"] >= 95
    assert {name: measured["post"][name] for name in at_least if measured["post"][name] < at_least[name]} == {}
    assert {name: measured["post"][name] for name in at_most if measured["post"][name] > at_most[name]} == {}


def test_texts_follow_the_edit(romexp: Command, cache: Path) -> None:
    """RS: texts about the subject move towards texts about subjects of which the new answer holds."""
    measured = summary(romexp, cache, "dataset.limit=8")
    assert measured["post"]["RS"] > measured["pre"]["RS"] + 3
    assert measured["post"]["GE"] == pytest.approx(measured["pre"]["GE"], abs=15)


def test_questions(romexp: Command, cache: Path) -> None:
    measured = summary(romexp, cache, "dataset=minifact_zsre", "dataset.limit=20")
    assert measured["post"]["Efficacy"] > max(95, measured["pre"]["Efficacy"])
    assert measured["post"]["Specificity"] >= measured["pre"]["Specificity"] - 5
