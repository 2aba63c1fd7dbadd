"""Scores are those of one text at a time through the whole model, whatever is batched, packed or shared."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from conftest import FAMILIES
from naive_lm import nlls_after, target_nlls
from naive_lm import text_nlls as naive_text_nlls
from tokenizers import pre_tokenizers, trainers

from romexp.errors import RecordError
from romexp.lm import scoring
from romexp.lm.apply_delta import applied, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import TargetScore, score, text_nlls
from romexp.lm.weight_delta import Dense, LowRank, WeightDelta

QUERIES = (
    Query(prompt="Steve Jobs was the founder of", targets=("Apple", "Microsoft Office")),
    Query(prompt="Paris", targets=("is located in the north of the country", "Paris", "x")),
    Query(prompt="Anna and Bob play the violin; Édouard Zoë Müller plays the", targets=("piano",)),
    Query(prompt="The mother tongue of Danielle Darrieux is", targets=("French", "French", "Zürich")),
    Query(prompt="Steve Jobs was the founder of", targets=("Apple", "Microsoft Office")),
    Query(prompt="Paris", targets=("is located in the north of the country", "x")),
    Query(prompt="Paris", targets=("Seattle",)),
    Query(prompt="The mother tongue of Danielle Darrieux is", targets=("French", "Zürich")),
    Query(prompt="The mother tongue of Danielle Darrieux is", targets=("French", "Zürich")),
)
EDITS = (None, None, None, None, 0, 2, 1, 3, 1)
"""Which of `some_edits` each query runs through."""
CLOSE = 3e-5
"""Measured 5e-6 on losses up to 10."""


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


def some_edits(lm: LanguageModel) -> list[WeightDelta]:
    """A rank-one edit, a full one two layers up, one in the lowest layer's attention, and none."""
    memory, upper = (f"{lm.architecture.mlp_out_name(layer)}.weight" for layer in (1, 3))
    attention = f"{lm.architecture.attn_qkv_names(0)[0]}.weight"
    n_in, n_out = weight_in_out(lm, memory).shape
    return [
        WeightDelta(terms={memory: LowRank(left=torch.randn(n_in, 1), right=torch.randn(n_out, 1))}),
        WeightDelta(terms={upper: Dense(value=torch.randn(n_in, n_out))}),
        WeightDelta(terms={attention: Dense(value=torch.randn(weight_in_out(lm, attention).shape))}),
        WeightDelta(),
    ]


def of_queries(lm: LanguageModel, which: Sequence[int | None] = EDITS) -> list[WeightDelta | None]:
    """The delta of each query; queries of one edit share the object."""
    edits = some_edits(lm)
    return [None if i is None else edits[i] for i in which]


def expected(lm: LanguageModel, query: Query, delta: WeightDelta | None) -> list[tuple[list[float], list[int]]]:
    """By the naive computation, the edit written into the weights."""
    with applied(lm, delta or WeightDelta()):
        return [target_nlls(lm, query.prompt, target) for target in query.targets]


def assert_same(one: Sequence[tuple[TargetScore, ...]], other: Sequence[tuple[TargetScore, ...]]) -> None:
    for a, b in zip(one, other, strict=True):
        assert [s.token_nlls for s in a] == [pytest.approx(s.token_nlls, abs=CLOSE) for s in b]
        assert [s.predictions for s in a] == [s.predictions for s in b]


def test_each_score_is_that_of_its_text_alone(lm: LanguageModel) -> None:
    deltas = of_queries(lm)
    scores = score(lm, QUERIES, deltas=deltas)
    for query, delta, got in zip(QUERIES, deltas, scores, strict=True):
        for one, target, (nlls, predictions) in zip(got, query.targets, expected(lm, query, delta), strict=True):
            assert lm.tokenizer.decode(one.token_ids) == f" {target}"
            assert one.token_nlls == pytest.approx(nlls, abs=CLOSE)
            assert one.nll == pytest.approx(sum(nlls) / len(nlls), abs=CLOSE)
            assert list(one.predictions) == predictions
    assert max(len(one.token_ids) for got in scores for one in got) > 3
    assert scores[0][0].nll != pytest.approx(scores[0][1].nll, abs=0.01)
    for edited, clean in ((4, 0), (5, 1), (8, 3)):  # a control: the edits do something
        assert scores[edited][0].nll != pytest.approx(scores[clean][0].nll, abs=0.01)
    assert_same([scores[7]], [(scores[3][0], scores[3][2])])  # and the empty one does nothing


@pytest.mark.parametrize("max_batch_tokens", [1, 30, 100])
def test_neither_batches_nor_order_matter(tiny_lm: LanguageModel, max_batch_tokens: int) -> None:
    deltas = of_queries(tiny_lm)
    together = score(tiny_lm, QUERIES, deltas=deltas)
    order = random.sample(range(len(QUERIES)), len(QUERIES))
    mixed = [QUERIES[i] for i in order], [deltas[i] for i in order]
    apart = score(tiny_lm, mixed[0], deltas=mixed[1], max_batch_tokens=max_batch_tokens)
    assert_same(apart, [together[i] for i in order])


def test_predictions_are_what_the_model_would_say(tiny_lm: LanguageModel) -> None:
    """Scoring the predictions themselves: none of their tokens can be made more likely."""
    prompt = "Steve Jobs was the"
    (said,) = score(tiny_lm, [Query(prompt=prompt, targets=("founder",))])
    best = tiny_lm.tokenizer.decode(said[0].predictions[:1])
    nlls, _ = nlls_after(tiny_lm, tiny_lm.tokenizer(prompt)["input_ids"], said[0].predictions[:1])
    assert nlls[0] <= said[0].token_nlls[0]
    assert best != " founder"


def test_logits_are_taken_in_pieces(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """More positions than are held at once, the last piece smaller than the others."""
    deltas = of_queries(tiny_gpt2)
    whole = score(tiny_gpt2, QUERIES, deltas=deltas)
    widths: list[int] = []
    plain = scoring.logits

    def counted(lm: LanguageModel, hidden: torch.Tensor) -> torch.Tensor:
        widths.append(len(hidden))
        return plain(lm, hidden)

    monkeypatch.setattr(scoring, "LOGIT_CHUNK", 4)
    monkeypatch.setattr(scoring, "logits", counted)
    assert_same(score(tiny_gpt2, QUERIES, deltas=deltas), whole)
    assert widths[:-1] == [4] * (len(widths) - 1)
    assert widths[-1] < 4


@pytest.fixture
def counts(tiny_gpt2: LanguageModel) -> Iterator[dict[int, list[tuple[int, ...]]]]:
    """Shapes (rows, tokens) that pass through each block."""
    shapes: dict[int, list[tuple[int, ...]]] = {layer: [] for layer in range(tiny_gpt2.n_layers)}
    handles = [
        tiny_gpt2.block(layer).register_forward_pre_hook(
            lambda _m, args, layer=layer: shapes[layer].append(tuple(args[0].shape[:2]))
        )
        for layer in shapes
    ]
    yield shapes
    for handle in handles:
        handle.remove()


def test_what_edits_share_is_computed_once(tiny_gpt2: LanguageModel, counts: dict[int, list[tuple[int, ...]]]) -> None:
    """Five models, one prompt, three targets: one row below the lowest edited layer, five above."""
    prompt, targets = "Steve Jobs was the founder of", ("Apple", "phone", "bank of the country")
    deltas = of_queries(tiny_gpt2, (None, 0, 1, 0, None))
    score(tiny_gpt2, [Query(prompt=prompt, targets=targets)] * 5, deltas=deltas)
    tail = sum(len(tiny_gpt2.tokenizer(f" {t}")["input_ids"]) - 1 for t in targets)
    width = len(tiny_gpt2.tokenizer(prompt)["input_ids"]) + tail
    assert counts == {0: [(1, width)], 1: [(5, width)], 2: [(5, width)], 3: [(5, width)]}


@pytest.fixture(scope="module")
def merging(tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    """A model whose tokenizer merges across spaces: a prompt's last letters may join the target's first."""
    lm = tiny_factory("gpt2")
    inner = lm.tokenizer.backend_tokenizer
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(["founder of Apple", "founder of Apple", "founder of"], trainer)
    return lm


def test_targets_before_which_the_prompts_tokens_differ(merging: LanguageModel) -> None:
    """Whole texts are tokenized; a token that straddles the border belongs to the target."""
    prompt, targets = "He is the founder of", ("Apple", "it", "Apple it")
    texts = [merging.tokenizer(f"{prompt} {target}", return_offsets_mapping=True) for target in targets]
    starts = [next(i for i, (_, end) in enumerate(t["offset_mapping"]) if end > len(prompt)) for t in texts]
    heads = [t["input_ids"][:start] for t, start in zip(texts, starts, strict=True)]
    assert heads[0] == heads[2] != heads[1]
    scores = score(merging, [Query(prompt=prompt, targets=targets), Query(prompt="He", targets=("it",))])
    for one, text, head in zip(scores[0], texts, heads, strict=True):
        nlls, predictions = nlls_after(merging, head, text["input_ids"][len(head) :])
        assert one.token_nlls == pytest.approx(nlls, abs=CLOSE)
        assert list(one.predictions) == predictions
    assert [len(got) for got in scores] == [3, 1]


def test_nothing_to_score(tiny_gpt2: LanguageModel) -> None:
    assert score(tiny_gpt2, []) == []
    assert score(tiny_gpt2, [Query(prompt="Paris", targets=())]) == [()]


def test_prompts_and_targets_without_tokens(tiny_gpt2: LanguageModel) -> None:
    """There is nothing from which a first token could be predicted; a wrong column must not be read instead."""
    (error,) = score(tiny_gpt2, [Query(prompt="", targets=("Paris",))])
    assert isinstance(error, RecordError)
    assert "the prompt has no token" in error.reason


def test_a_bos_is_enough_to_predict_from(tiny_llama_bos: LanguageModel) -> None:
    ((got,),) = score(tiny_llama_bos, [Query(prompt="", targets=("Paris",))])
    nlls, _ = target_nlls(tiny_llama_bos, "", "Paris")
    assert got.token_nlls == pytest.approx(nlls, abs=CLOSE)


def test_errors_stand_in_the_place_of_bad_queries(tiny_gpt2: LanguageModel) -> None:
    """The others are scored as without them, each through its own edit."""
    deltas = of_queries(tiny_gpt2)
    long, empty = Query(prompt="x" * 129, targets=("Paris",)), Query(prompt="", targets=("Paris", "x"))
    queries = [*QUERIES[:5], long, *QUERIES[5:8], empty, QUERIES[8]]
    placed = [*deltas[:5], deltas[4], *deltas[5:8], None, deltas[8]]
    scores = score(tiny_gpt2, queries, deltas=placed)
    errors = {i: scores[i] for i in (5, 9)}
    assert all(isinstance(error, RecordError) and error.field == "prompt" for error in errors.values())
    assert "sees 128 at once" in str(errors[5])
    assert f"{'x' * 77}…" in str(errors[5])
    assert "the prompt has no token" in str(errors[9])
    good = [one for i, one in enumerate(scores) if i not in errors]
    assert_same(good, score(tiny_gpt2, QUERIES, deltas=deltas))


def test_deltas_are_one_a_query(tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(ValueError, match="zip"):
        score(tiny_gpt2, QUERIES[:2], deltas=[None])


def test_a_diverged_edit_leaves_the_scores_of_the_others_alone(tiny_gpt2: LanguageModel) -> None:
    """Unedited and edited queries share batches and blocks with it."""
    deltas = of_queries(tiny_gpt2)
    name = f"{tiny_gpt2.architecture.mlp_out_name(1)}.weight"
    nothing = torch.full(weight_in_out(tiny_gpt2, name).shape, torch.nan)
    diverged = WeightDelta(terms={name: Dense(value=nothing)})
    *scores, bad = score(tiny_gpt2, [*QUERIES, QUERIES[0]], deltas=[*deltas, diverged])
    assert all(math.isnan(target.nll) for target in bad)
    assert_same(scores, score(tiny_gpt2, QUERIES, deltas=deltas))


class TestTexts:
    TEXTS = ("Paris", "Steve Jobs was the founder of Apple.", "P", "The violin; Édouard Zoë Müller plays", "", "P")

    def test_each_is_that_of_its_text_alone(self, lm: LanguageModel) -> None:
        deltas = of_queries(lm, (None, 0, None, 1, 0, 2))
        got = text_nlls(lm, self.TEXTS, deltas=deltas)
        clean = text_nlls(lm, self.TEXTS)
        for text, delta, nlls, unedited in zip(self.TEXTS, deltas, got, clean, strict=True):
            if not text:
                assert nlls == ()
                continue
            assert unedited == pytest.approx(naive_text_nlls(lm, text), abs=CLOSE)
            with applied(lm, delta or WeightDelta()):
                assert nlls == pytest.approx(naive_text_nlls(lm, text), abs=CLOSE)
        assert got[1] != pytest.approx(clean[1], abs=0.01)

    def test_truncated(self, tiny_gpt2: LanguageModel) -> None:
        whole = text_nlls(tiny_gpt2, self.TEXTS[:2])
        cut = text_nlls(tiny_gpt2, self.TEXTS[:2], max_tokens=4)
        assert [len(nlls) for nlls in cut] == [min(len(nlls), 3) for nlls in whole]
        assert cut[1] == pytest.approx(whole[1][:3], abs=CLOSE)
        (long,) = text_nlls(tiny_gpt2, ["x" * 200])
        assert len(long) == 127

    def test_texts_of_a_single_token(self, tiny_gpt2: LanguageModel) -> None:
        assert text_nlls(tiny_gpt2, ["P"]) == [()]
        assert text_nlls(tiny_gpt2, []) == []
