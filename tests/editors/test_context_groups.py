"""Contexts in groups: a key is the mean of the groups' means, and sampled contexts begin with MEMIT's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from romexp.editors import contexts
from romexp.editors.contexts import OPENINGS, context_groups, context_templates
from romexp.editors.many.readings import template_weights
from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel


def groups(lm: LanguageModel, **changes: Any) -> tuple[tuple[str, ...], ...]:
    return context_groups(lm, **{"given": None, "length_counts": ((16, 7),), "seed": 0, "cache_dir": None, **changes})


def test_sampled_ones_begin_with_the_words_in_turn(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    (bare,), others = groups(tiny_gpt2)
    assert bare == "{}"
    assert len(set(others)) == 7
    for i, text in enumerate(others):
        assert text.startswith(OPENINGS[i % 5])
        assert text.endswith(". {}")
    assert groups(tiny_gpt2, cache_dir=tmp_path) == groups(tiny_gpt2, cache_dir=tmp_path) == ((bare,), others)
    assert groups(tiny_gpt2, seed=1)[1] != others
    # ROME's contexts of the same lengths and seed are others, and kept in another file.
    given: dict[str, Any] = {"given": None, "length_counts": ((16, 7),), "seed": 0}
    assert not set(context_templates(tiny_gpt2, cache_dir=tmp_path, **given)[1:]) & set(others)
    assert len(list((tmp_path / "context_templates").glob("*.json"))) == 2


def test_the_opening_word_counts(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], int]] = []

    def generate(lm: LanguageModel, prompts: list[str], *, sampler: Any, seeds: list[int]) -> list[str]:
        asked.append((prompts, sampler.max_length))
        return prompts

    monkeypatch.setattr(contexts, "generate", generate)
    groups(tiny_gpt2, length_counts=((10, 5),))
    assert asked == [(list(OPENINGS), 10)]


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize(
    ("given", "expected", "weights"),
    [
        (["{}"], (("{}",),), (1.0,)),
        (["{}", "A. {}", "B. {}"], (("{}",), ("A. {}", "B. {}")), (0.5, 0.25, 0.25)),
        ([["{}"], ["A. {}", "B. {}"]], (("{}",), ("A. {}", "B. {}")), (0.5, 0.25, 0.25)),
        ([["{}", "A. {}"], ["B. {}"]], (("{}", "A. {}"), ("B. {}",)), (0.25, 0.25, 0.5)),
    ],
)
def test_given_ones(
    tiny_gpt2: LanguageModel, tmp_path: Path, given: Any, expected: Any, weights: Any, as_file: bool
) -> None:
    if as_file:
        (tmp_path / "contexts.json").write_text(json.dumps(given))
    found = groups(tiny_gpt2, given=str(tmp_path / "contexts.json") if as_file else given)
    assert found == expected
    assert template_weights(found) == weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([["{}"], []], "a list of groups of which each is a list of texts"),
        ([["{}"], "A. {}"], "a list of groups"),
        ([["A. {}"], ["{}"]], "the first entry must be '{}'"),
        ([["{}"], ["no place"]], "exactly one '{}'"),
        ([], "expected a list of texts"),
        ({"a": 1}, "expected a list of texts"),
    ],
)
def test_bad_ones_are_refused(tiny_gpt2: LanguageModel, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"editor\.context_templates: .*{message}"):
        groups(tiny_gpt2, given=given)
