"""A sampled text is a function of its prompt, its seed and its model alone: that of a plain loop over whole passes."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch
from conftest import FAMILIES
from naive_lm import all_logits, sample, tokens

from romexp.errors import ConfigError, RecordError
from romexp.lm import sampling
from romexp.lm.apply_delta import applied, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler, clean, generate
from romexp.lm.weight_delta import Dense, LowRank, WeightDelta

PROMPTS = (
    "Steve Jobs was the founder of",
    "Paris",
    "",
    "Anna and Bob play the violin; Édouard plays",
    "It is said that the",
    "The bank of the north of the country. The Eiffel Tower is located in Paris, and the Space Needle",
)
SEEDS = (3, 1, 4, 1, 5, 2**63 - 1)
SAMPLER = Sampler(max_length=22)


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


def edits(lm: LanguageModel) -> list[WeightDelta]:
    """A rank-one edit and a full one, both large enough to change what is said."""
    low, high = (f"{lm.architecture.mlp_out_name(layer)}.weight" for layer in (0, 2))
    n_in, n_out = weight_in_out(lm, low).shape
    return [
        WeightDelta(terms={low: LowRank(left=torch.randn(n_in, 1), right=torch.randn(n_out, 1))}),
        WeightDelta(terms={high: Dense(value=torch.randn(n_in, n_out))}),
    ]


def start(lm: LanguageModel, prompt: str) -> list[int]:
    return tokens(lm, prompt) or [lm.tokenizer.eos_token_id]


def plain(lm: LanguageModel, prompt: str, seed: int, sampler: Sampler) -> str:
    """The naive text, with the uniform numbers of the seed's own generator."""
    ids = start(lm, prompt)
    uniforms = torch.rand(max(0, sampler.max_length - len(ids)), generator=torch.Generator().manual_seed(seed))
    grown = sample(lm, ids, uniforms=uniforms.tolist(), top_k=sampler.top_k, temperature=sampler.temperature)
    return clean(lm, grown)


def test_texts_are_those_of_the_plain_loop_through_each_rows_model(lm: LanguageModel) -> None:
    first, second = edits(lm)
    deltas = [first, None, second, None]
    prompts, seeds, sampler = PROMPTS[:4], SEEDS[:4], Sampler(max_length=18)
    texts = generate(lm, prompts, sampler=sampler, seeds=seeds, deltas=deltas)
    unedited = generate(lm, prompts, sampler=sampler, seeds=seeds)
    for prompt, seed, delta, text, before in zip(prompts, seeds, deltas, texts, unedited, strict=True):
        with applied(lm, delta or WeightDelta()):
            assert text == plain(lm, prompt, seed, sampler)
        assert (text == before) == (delta is None)
        assert text != clean(lm, start(lm, prompt))


@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(max_length=16, top_k=3, temperature=2.0),
        Sampler(max_length=16, top_k=40, temperature=0.5),
        Sampler(max_length=16, top_k=400),  # all that there are
    ],
)
def test_every_setting_of_the_sampler(tiny_gpt2: LanguageModel, sampler: Sampler) -> None:
    texts = generate(tiny_gpt2, PROMPTS, sampler=sampler, seeds=SEEDS)
    assert texts == [plain(tiny_gpt2, prompt, seed, sampler) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    assert texts != generate(tiny_gpt2, PROMPTS, sampler=Sampler(max_length=16), seeds=SEEDS)


def test_without_a_limit_none_are_sorted(tiny_gpt2: LanguageModel) -> None:
    """The inverse of the cumulative distribution over token ids in their own order."""
    sampler = Sampler(max_length=16, top_k=None)
    for prompt, seed in zip(PROMPTS, SEEDS, strict=True):
        ids = start(tiny_gpt2, prompt)
        for u in torch.rand(max(0, 16 - len(ids)), generator=torch.Generator().manual_seed(seed)).tolist():
            with torch.no_grad():
                scores = tiny_gpt2.model(input_ids=torch.tensor([ids])).logits[0, -1]
            ids = [*ids, int((scores.softmax(dim=-1).cumsum(dim=-1) <= u).sum())]
        assert generate(tiny_gpt2, [prompt], sampler=sampler, seeds=[seed]) == [clean(tiny_gpt2, ids)]


def shuffled(items: Sequence[object], order: Sequence[int]) -> list:  # type: ignore[type-arg]
    return [items[i] for i in order]


def test_batches_order_and_neighbours_do_not_matter(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = edits(tiny_lm)
    deltas = [first, None, second, first, second, None]
    together = generate(tiny_lm, PROMPTS, sampler=SAMPLER, seeds=SEEDS, deltas=deltas)
    order = random.sample(range(len(PROMPTS)), len(PROMPTS))
    mixed = generate(
        tiny_lm,
        shuffled(PROMPTS, order),
        sampler=SAMPLER,
        seeds=shuffled(SEEDS, order),
        deltas=shuffled(deltas, order),
    )
    assert mixed == shuffled(together, order)
    monkeypatch.setattr(sampling, "_rows_in_memory", lambda lm, sampler: 2)
    assert generate(tiny_lm, PROMPTS, sampler=SAMPLER, seeds=SEEDS, deltas=deltas) == together
    alone = generate(tiny_lm, PROMPTS[:1], sampler=SAMPLER, seeds=SEEDS[:1], deltas=deltas[:1])
    assert alone == together[:1]


def test_memory_decides_how_many_grow_at_once(tiny_gpt2: LanguageModel) -> None:
    """Keys and values of 22 tokens, 4 layers of width 32, float32: 22 KiB a text."""
    shapes: list[int] = []
    handle = tiny_gpt2.block(0).register_forward_pre_hook(lambda _m, args: shapes.append(args[0].shape[0]))
    small = Sampler(max_length=22, cache_gib=2 * 22 / 2**20)
    try:
        texts = generate(tiny_gpt2, PROMPTS, sampler=small, seeds=SEEDS)
    finally:
        handle.remove()
    assert set(shapes) == {2}
    assert texts == generate(tiny_gpt2, PROMPTS, sampler=SAMPLER, seeds=SEEDS)


def test_running_out_of_memory_halves_the_batch(tiny_gpt2: LanguageModel) -> None:
    def refuse(_m: object, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].shape[0] > 3:
            raise torch.OutOfMemoryError("too much")

    handle = tiny_gpt2.block(0).register_forward_pre_hook(refuse)
    try:
        texts = generate(tiny_gpt2, PROMPTS, sampler=SAMPLER, seeds=SEEDS)
    finally:
        handle.remove()
    assert texts == generate(tiny_gpt2, PROMPTS, sampler=SAMPLER, seeds=SEEDS)


def test_the_length_counts_the_prompt(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(sampling, "clean", lambda lm, ids: lengths.append(len(ids)) or "")
    generate(tiny_gpt2, PROMPTS, sampler=Sampler(max_length=20), seeds=SEEDS)
    own = sorted(len(start(tiny_gpt2, prompt)) for prompt in PROMPTS)
    assert own[0] == 1
    assert own[-1] > 20
    assert sorted(lengths) == [max(20, n) for n in own]


def test_a_prompt_that_is_long_enough_stays_as_it_is(tiny_gpt2: LanguageModel) -> None:
    """Alone, and beside one that grows."""
    short = Sampler(max_length=3)
    for prompts in (PROMPTS[:1], PROMPTS[:2]):
        assert generate(tiny_gpt2, prompts, sampler=short, seeds=SEEDS[: len(prompts)])[0] == PROMPTS[0]


def test_an_empty_prompt_starts_from_end_of_text(tiny_gpt2: LanguageModel) -> None:
    empty, explicit = generate(tiny_gpt2, ["", "<|endoftext|>"], sampler=SAMPLER, seeds=[7, 7])
    assert empty == explicit
    assert len(empty) > 5
    assert generate(tiny_gpt2, [], sampler=SAMPLER, seeds=[]) == []


def test_the_top_one_is_greedy_whatever_the_seed(lm: LanguageModel) -> None:
    (one,), (other,) = (generate(lm, [PROMPTS[0]], sampler=Sampler(max_length=16, top_k=1), seeds=[s]) for s in (1, 2))
    ids = start(lm, PROMPTS[0])
    while len(ids) < 16:
        ids.append(int(all_logits(lm, ids)[-1].argmax()))
    assert one == other == clean(lm, ids)


def test_seeds_matter(tiny_gpt2: LanguageModel) -> None:
    texts = generate(tiny_gpt2, [PROMPTS[0]] * 6, sampler=SAMPLER, seeds=range(6))
    assert len(set(texts)) == 6
    assert generate(tiny_gpt2, [PROMPTS[0]] * 2, sampler=SAMPLER, seeds=[5, 5]) == [texts[5]] * 2


@pytest.mark.parametrize(("top_k", "temperature"), [(4, 1.0), (3, 3.0)])
def test_next_tokens_come_as_often_as_they_should(tiny_gpt2: LanguageModel, top_k: int, temperature: float) -> None:
    """1,500 draws of one token: only the top k, each within five standard errors of its renormalized probability."""
    ids, n = start(tiny_gpt2, PROMPTS[0]), 1500
    kept = (all_logits(tiny_gpt2, ids)[-1] / temperature).softmax(-1).topk(top_k)
    expected = (kept.values / kept.values.sum()).tolist()
    sampler = Sampler(max_length=len(ids) + 1, top_k=top_k, temperature=temperature)
    counts = Counter(generate(tiny_gpt2, [PROMPTS[0]] * n, sampler=sampler, seeds=range(n)))
    names = [clean(tiny_gpt2, [*ids, int(token)]) for token in kept.indices]
    assert counts.keys() == set(names)
    for name, p in zip(names, expected, strict=True):
        assert counts[name] / n == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5)


def test_texts_longer_than_the_context_are_refused(tiny_gpt2: LanguageModel) -> None:
    generate(tiny_gpt2, ["Paris"], sampler=Sampler(max_length=128), seeds=[0])
    with pytest.raises(ConfigError, match="129 tokens"):
        generate(tiny_gpt2, ["Paris"], sampler=Sampler(max_length=129), seeds=[0])


def test_an_error_stands_in_the_place_of_a_prompt_longer_than_the_context(tiny_gpt2: LanguageModel) -> None:
    """The others get what they get without it, each with its own seed and its own edit."""
    first, second = edits(tiny_gpt2)
    prompts, seeds, deltas = [*PROMPTS[:2], "x" * 150, PROMPTS[3]], [3, 1, 4, 5], [first, None, second, second]
    *before, error, after = generate(tiny_gpt2, prompts, sampler=SAMPLER, seeds=seeds, deltas=deltas)
    assert isinstance(error, RecordError)
    assert "sees 128" in error.reason
    good = [0, 1, 3]
    without = generate(
        tiny_gpt2,
        shuffled(prompts, good),
        sampler=SAMPLER,
        seeds=shuffled(seeds, good),
        deltas=shuffled(deltas, good),
    )
    assert [*before, after] == without
    assert all(
        isinstance(error, RecordError) for error in generate(tiny_gpt2, ["x" * 150] * 2, sampler=SAMPLER, seeds=[0, 1])
    )


def test_seeds_and_deltas_are_one_a_prompt(tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(ValueError, match="zip"):
        generate(tiny_gpt2, PROMPTS[:2], sampler=SAMPLER, seeds=[0])
    with pytest.raises(ValueError, match="zip"):
        generate(tiny_gpt2, PROMPTS[:2], sampler=SAMPLER, seeds=[0, 1], deltas=[None])


@pytest.mark.parametrize("field", ["max_length", "top_k", "temperature", "cache_gib"])
def test_settings_are_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}.* must be positive"):
        Sampler(**{field: 0})  # type: ignore[arg-type]


def test_clean(tiny_gpt2: LanguageModel, tiny_llama_bos: LanguageModel) -> None:
    text = "<|endoftext|>Zürich, one\n\ntwo\nthree<|endoftext|> é ½ four"
    ids = tokens(tiny_gpt2, text)
    assert ids[0] == tiny_gpt2.tokenizer.eos_token_id
    assert clean(tiny_gpt2, ids) == unicodedata.normalize("NFKD", "Zürich, one two\nthree é ½ four")
    assert clean(tiny_llama_bos, tokens(tiny_llama_bos, "Paris , x")) == "Paris , x"


def test_half_precision_and_float64(tiny_factory: Callable[..., LanguageModel]) -> None:
    for dtype in (torch.bfloat16, torch.float64):
        lm = tiny_factory("llama", dtype=dtype)
        texts = generate(lm, PROMPTS, sampler=SAMPLER, seeds=SEEDS, deltas=[*edits(lm), None] * 2)
        assert all(len(text) >= len(prompt) for text, prompt in zip(texts, PROMPTS, strict=True))
