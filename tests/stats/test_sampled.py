"""Texts that a model writes itself: as many as are wanted, the same for the same seed, drawn once, with progress."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from romexp.errors import ConfigError, DataError
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import clean
from romexp.stats import sampled
from romexp.stats.covariance import Covariance
from romexp.stats.sampled import SampledTexts

WIDTH = 64
"""Of the tiny models' MLPs."""
COVARIANCE = Covariance(corpus=SampledTexts(length=20), sample_size=None)


def n_tokens(lm: LanguageModel, texts: list[str]) -> int:
    return sum(map(len, lm.tokenizer(texts)["input_ids"]))


@pytest.mark.parametrize("tokens", [1, 100, 700])
def test_as_many_tokens_as_wanted_and_few_more(tiny_gpt2: LanguageModel, tokens: int) -> None:
    texts = list(SampledTexts(length=20).written_by(tiny_gpt2, tokens=tokens).load())
    # A random model writes bytes that are no text. Read again, they are up to three tokens each.
    assert tokens <= n_tokens(tiny_gpt2, texts) <= 3.3 * tokens + 60
    assert len(texts) <= 1.1 * tokens / 19 + 1


def test_texts_depend_on_the_seed_and_not_on_how_many(tiny_gpt2: LanguageModel) -> None:
    settings = SampledTexts(length=20)
    few = settings.written_by(tiny_gpt2, tokens=100).load()
    many = settings.written_by(tiny_gpt2, tokens=400).load()
    assert list(many[: len(few)]) == list(few)
    assert len(set(many)) == len(many)
    assert replace(settings, seed=1).written_by(tiny_gpt2, tokens=100).load() != few


def test_a_text_begins_after_bos_or_the_end_of_text_token(
    tiny_gpt2: LanguageModel, tiny_llama_bos: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lm, first in ((tiny_gpt2, tiny_gpt2.tokenizer.eos_token_id), (tiny_llama_bos, 1)):
        seen: list[int] = []
        embedding = lm.module(lm.architecture.embedding)
        hook = embedding.register_forward_pre_hook(lambda m, args, seen=seen: seen.extend(args[0][:, 0].tolist()))
        SampledTexts(length=2).written_by(lm, tokens=5).load()
        hook.remove()
        assert set(seen) == {first}


def test_from_all_tokens_or_the_most_likely_ones(tiny_gpt2: LanguageModel) -> None:
    end = int(tiny_gpt2.tokenizer.eos_token_id)
    with torch.no_grad():
        order = tiny_gpt2.model(torch.tensor([[end]])).logits[0, 0].argsort(descending=True).tolist()
    by_rank = [clean(tiny_gpt2, [end, token]) for token in order]

    def ranks(top_k: int | None) -> list[int]:
        """The rank of each first token; the lowest where several tokens give the same text."""
        texts = SampledTexts(length=2, top_k=top_k).written_by(tiny_gpt2, tokens=200).load()
        return [by_rank.index(text) for text in texts]

    assert max(ranks(3)) < 3
    assert max(ranks(None)) > 20


class TestCovariance:
    def test_ten_tokens_for_each_entry_of_a_key(self, tiny_lm: LanguageModel) -> None:
        assert COVARIANCE.moments(tiny_lm, [1])[1].count == 10 * WIDTH

    def test_or_as_many_as_wanted(self, tiny_gpt2: LanguageModel) -> None:
        assert replace(COVARIANCE, max_tokens=777).moments(tiny_gpt2, [1])[1].count == 777

    def test_the_key_changes_with_every_setting(self, tiny_gpt2: LanguageModel) -> None:
        others = [
            COVARIANCE,
            replace(COVARIANCE, max_tokens=641),
            *(replace(COVARIANCE, corpus=texts) for texts in (SampledTexts(), SampledTexts(length=20, seed=1))),
            replace(COVARIANCE, corpus=SampledTexts(length=20, top_k=None)),
        ]
        found = [str(sorted(each.ingredients(tiny_gpt2, 1).items())) for each in others]
        assert len(set(found)) == len(found)
        assert str(sorted(replace(COVARIANCE, max_tokens=640).ingredients(tiny_gpt2, 1).items())) == found[0]

    def test_texts_are_drawn_once_for_all_layers(
        self, tiny_gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = replace(COVARIANCE, cache_dir=tmp_path)
        first = kept.moments(tiny_gpt2, [1])[1]
        monkeypatch.setattr(sampled, "generate", pytest.fail)
        assert kept.moments(tiny_gpt2, [2])[2].count == first.count
        (texts,) = tmp_path.glob("*/sampled_texts_*.json")
        texts.write_text("[")
        with pytest.raises(DataError, match=r"covariance\.cache_dir: cannot .*sampled_texts_"):
            kept.moments(tiny_gpt2, [3])

    def test_kept_texts_give_what_drawn_ones_give(self, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
        drawn, kept = COVARIANCE, replace(COVARIANCE, cache_dir=tmp_path)
        assert torch.equal(drawn.moments(tiny_gpt2, [1])[1].matrix, kept.moments(tiny_gpt2, [1])[1].matrix)

    def test_progress_while_texts_are_drawn_and_measured(self, tiny_gpt2: LanguageModel) -> None:
        told: list[tuple[int, int | None]] = []
        COVARIANCE.moments(tiny_gpt2, [1], progress=lambda done, total: told.append((done, total)))
        amounts, total = [done for done, _ in told], 2 * 10 * WIDTH
        assert {total for _, total in told} == {total}
        assert amounts == sorted(amounts)
        assert amounts[-1] == total
        assert sum(amount < total // 2 for amount in amounts) > 10, "the bar moves while texts are drawn"


def test_a_model_that_ends_at_once(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "generate", lambda lm, prompts, **settings: [""] * len(prompts))
    with pytest.raises(ConfigError, match=r"covariance=sampled: tiny-gpt2 wrote \d+ texts, and all of them are empty"):
        COVARIANCE.moments(tiny_gpt2, [1])


@pytest.mark.parametrize("settings", [{"length": 1}, {"top_k": 0}, {"seed": -1}])
def test_bad_settings_are_named(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"covariance\.corpus\.{next(iter(settings))}: expected"):
        SampledTexts(**settings)
