"""Buckets run only what δ can change, and give what δ in a whole pass gives."""

from __future__ import annotations

import random
from dataclasses import replace

import naive
import pytest
import torch
from edit_cases import REQUESTS, TEMPLATES

from romexp.editors.values.bucket import Bucket, make_buckets
from romexp.editors.values.regroup import keep_requests
from romexp.editors.values.texts import EditText, edit_texts
from romexp.lm.batching import PASS_TOKENS
from romexp.lm.forward import Row, logits
from romexp.lm.model import LanguageModel


def all_texts(lm: LanguageModel) -> list[EditText]:
    return [text for row in edit_texts(lm, REQUESTS, TEMPLATES, fact_token="subject_last") for text in row]


def made_up(lm: LanguageModel, lookup: int, suffix: int) -> EditText:
    """Random tokens, `lookup` of them before the edited one, `suffix` from it on."""
    ids = [random.randrange(2, lm.model.config.vocab_size) for _ in range(lookup + suffix)]
    return EditText(request=0, template=0, row=Row.text(ids), lookup=lookup, targets=(5,), first_read=len(ids) - 1)


@torch.no_grad()
def assert_whole_pass(lm: LanguageModel, bucket: Bucket, layer: int) -> None:
    """Logits at every suffix token, with a δ of its own for each row, against a hook on the MLP of a whole pass."""
    delta = torch.randn(len(bucket.texts), lm.hidden_size)
    changed, clean = (bucket.final_states(lm, d[:, None]) for d in (delta, torch.zeros_like(delta)))
    for i, text in enumerate(bucket.texts):
        n = len(text.row) - text.lookup
        with naive.added(lm, lm.architecture.mlp_name(layer), text.lookup, delta[i]):
            expected = naive.all_logits(lm, text.row.ids)[text.lookup :]
        torch.testing.assert_close(logits(lm, changed[i, :n]), expected, atol=2e-5, rtol=1e-4)
        unchanged = naive.all_logits(lm, text.row.ids)[text.lookup :]
        torch.testing.assert_close(logits(lm, clean[i, :n]), unchanged, atol=2e-5, rtol=1e-4)
        assert (expected - unchanged).abs().max() > 0.1


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_delta_over_a_cached_prefix_is_delta_in_a_whole_pass(tiny_lm: LanguageModel, layer: int) -> None:
    buckets = make_buckets(tiny_lm, all_texts(tiny_lm), layer=layer)
    assert len(buckets) > 1
    for bucket in buckets:
        assert_whole_pass(tiny_lm, bucket, layer)


def test_a_selection_of_rows(tiny_gpt2: LanguageModel) -> None:
    for bucket in make_buckets(tiny_gpt2, all_texts(tiny_gpt2), layer=1):
        rows = [*range(len(bucket.texts) - 1, -1, -2)]
        chosen = bucket.select(rows)
        assert chosen.texts == tuple(bucket.texts[i] for i in rows)
        assert torch.equal(chosen.keys, bucket.keys[rows])
        assert torch.equal(chosen.outputs, bucket.outputs[rows])
        assert torch.equal(chosen.initial, bucket.initial[rows])
        assert_whole_pass(tiny_gpt2, chosen, 1)


def test_what_the_edited_matrix_sees(tiny_lm: LanguageModel) -> None:
    memory, mlp = tiny_lm.architecture.mlp_out_name(1), tiny_lm.architecture.mlp_name(1)
    for bucket in make_buckets(tiny_lm, all_texts(tiny_lm), layer=1):
        for i, text in enumerate(bucket.texts):
            key, output = naive.look(tiny_lm, memory, text.row.ids, text.lookup)
            _, value = naive.look(tiny_lm, mlp, text.row.ids, text.lookup)
            torch.testing.assert_close(bucket.keys[i], key, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(bucket.outputs[i], output, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(bucket.initial[i, 0], value, atol=1e-5, rtol=1e-5)


def test_every_text_once_and_few_passes(tiny_gpt2: LanguageModel) -> None:
    """Suffixes of 1 to 60 tokens: a bucket has different lengths where padding costs less than another pass."""
    texts = [made_up(tiny_gpt2, random.randint(0, 5), suffix) for suffix in range(1, 61)]
    buckets = make_buckets(tiny_gpt2, random.sample(texts, len(texts)), layer=2)
    assert sorted(len(t.row) - t.lookup for bucket in buckets for t in bucket.texts) == list(range(1, 61))
    assert len(buckets) <= 12
    for bucket in buckets:
        lengths = [len(t.row) - t.lookup for t in bucket.texts]
        assert bucket.hidden.shape[1] == max(lengths)
        assert sum(max(lengths) - length for length in lengths) < 2 * PASS_TOKENS
        assert_whole_pass(tiny_gpt2, bucket, 2)


def test_a_kl_text_shares_the_pass_of_its_request(tiny_gpt2: LanguageModel) -> None:
    """It has one token only, and a pass of its own would cost as much as dozens."""
    texts = edit_texts(tiny_gpt2, REQUESTS[:1], TEMPLATES, fact_token="subject_last")[0]
    assert isinstance(texts, list)
    (bucket,) = make_buckets(tiny_gpt2, texts, layer=1)
    assert [text.template is None for text in bucket.texts].count(True) == 1
    assert len(bucket.texts) == len(TEMPLATES) + 1


class TestKeptRequests:
    """Few texts that are left are put together, and are the rows that they were."""

    def buckets(self, lm: LanguageModel) -> list[Bucket]:
        """Two requests, in buckets of short and of long suffixes; those of the short ones may have no prefix."""
        short = [replace(made_up(lm, i % 3, 2), request=i % 2) for i in range(80)]
        long = [replace(made_up(lm, 4 + i % 3, 9), request=i % 2) for i in range(20)]
        return make_buckets(lm, [*short, *long], layer=1)

    def test_few_texts_share_one_pass(self, tiny_lm: LanguageModel) -> None:
        buckets = self.buckets(tiny_lm)
        few = {0: [0, 1], 1: [2, 3, 4]}
        numbered = [
            replace(bucket.select(rows), texts=tuple(replace(bucket.texts[i], request=7) for i in rows))
            for bucket, rows in zip(buckets, few.values(), strict=True)
        ]
        (joined,) = keep_requests(tiny_lm, [*numbered, buckets[0]], {7})
        assert joined.texts == (*numbered[0].texts, *numbered[1].texts)
        assert torch.equal(joined.keys, torch.cat([numbered[0].keys, numbered[1].keys]))
        assert torch.equal(joined.initial, torch.cat([numbered[0].initial, numbered[1].initial]))
        assert_whole_pass(tiny_lm, joined, 1)

    def test_many_texts_stay_where_they_are(self, tiny_gpt2: LanguageModel) -> None:
        buckets = self.buckets(tiny_gpt2)
        assert len(buckets) == 2
        assert keep_requests(tiny_gpt2, buckets, {0, 1}) == buckets
        left = keep_requests(tiny_gpt2, buckets, {1})
        assert [len(bucket.texts) for bucket in left] == [40, 10]
        for bucket in left:
            assert {text.request for text in bucket.texts} == {1}
            assert_whole_pass(tiny_gpt2, bucket, 1)

    def test_without_prefixes(self, tiny_lm: LanguageModel) -> None:
        bare = [made_up(tiny_lm, 0, 2) for _ in range(60)]
        longer = [made_up(tiny_lm, 3, 9) for _ in range(3)]
        bare[0], longer[0] = replace(bare[0], request=1), replace(longer[0], request=1)
        (joined,) = keep_requests(tiny_lm, make_buckets(tiny_lm, [*bare, *longer], layer=1), {1})
        assert len(joined.texts) == 2
        assert_whole_pass(tiny_lm, joined, 1)


def test_lookups_at_the_first_token(tiny_lm: LanguageModel) -> None:
    """No text has a prefix; then only some have none."""
    bare = [made_up(tiny_lm, 0, 4) for _ in range(3)]
    (bucket,) = make_buckets(tiny_lm, bare, layer=1)
    assert bucket.prefix == {}
    assert_whole_pass(tiny_lm, bucket, 1)
    (mixed,) = make_buckets(tiny_lm, [*bare, made_up(tiny_lm, 6, 4), made_up(tiny_lm, 1, 4)], layer=1)
    assert {layer: keys.shape[2] for layer, (keys, _) in mixed.prefix.items()} == {2: 6, 3: 6}
    assert_whole_pass(tiny_lm, mixed, 1)


def test_only_the_suffix_runs_through_the_blocks_above(tiny_gpt2: LanguageModel) -> None:
    """What makes an edit fast: no block up to the edited layer, and no token left of the edited one."""
    (bucket,) = make_buckets(tiny_gpt2, [made_up(tiny_gpt2, 20, 3) for _ in range(5)], layer=1)
    shapes: dict[int, tuple[int, ...]] = {}
    handles = [
        tiny_gpt2.block(layer).register_forward_pre_hook(
            lambda _m, args, layer=layer: shapes.__setitem__(layer, tuple(args[0].shape[:2]))
        )
        for layer in range(4)
    ]
    bucket.final_states(tiny_gpt2, torch.zeros(5, 1, 32))
    for handle in handles:
        handle.remove()
    assert shapes == {2: (5, 3), 3: (5, 3)}
