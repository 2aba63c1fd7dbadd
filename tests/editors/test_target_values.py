"""Target values: the two places of δ, PMET's rule for a target that is said, batches, and the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import naive
import naive_many
import pytest
import torch
from edit_cases import REQUESTS, TEMPLATES

from romexp.editors.values import targets as module
from romexp.editors.values.bucket import make_buckets
from romexp.editors.values.optimize import ValueSettings
from romexp.editors.values.targets import TargetValues, ValueFinder
from romexp.editors.values.texts import EditText, edit_texts
from romexp.lm.forward import logits
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import FactToken

SETTINGS = ValueSettings(
    n_steps=5, lr=0.5, weight_decay=0.5, kl_factor=0.0625, clamp_norm_factor=2.0, loss_threshold=0.05
)
FINDER = ValueFinder(layer=1, place="block", settings=SETTINGS, batch_size=2, cache_dir=None)


def texts_of(
    lm: LanguageModel, numbers: Sequence[int] = (0, 1, 2, 3), *, fact_token: FactToken = "subject_last"
) -> list[list[EditText]]:
    rows = edit_texts(lm, [REQUESTS[i] for i in numbers], TEMPLATES, fact_token=fact_token)
    return [row for row in rows if isinstance(row, list)]


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_two_deltas_over_a_cached_prefix_are_two_in_a_whole_pass(tiny_lm: LanguageModel, layer: int) -> None:
    """One on the attention's output and one on the MLP's. The first changes what the MLP gets, if that comes later."""
    texts = [text for row in texts_of(tiny_lm) for text in row]
    names = [tiny_lm.architecture.mlp_name(layer), tiny_lm.architecture.attn_name(layer)]
    for bucket in make_buckets(tiny_lm, texts, layer=layer, place="mlp_and_attention"):
        delta = torch.randn(len(bucket.texts), 2, tiny_lm.hidden_size)
        with torch.no_grad():
            final = bucket.final_states(tiny_lm, delta)
        for i, text in enumerate(bucket.texts):
            before = [naive_many.output(tiny_lm, name, text.row.ids, text.lookup) for name in names]
            torch.testing.assert_close(bucket.initial[i], torch.stack(before), atol=1e-5, rtol=1e-5)
            unchanged = naive.all_logits(tiny_lm, text.row.ids)[text.lookup :]
            with (
                naive_many.added(tiny_lm, names[0], text.lookup, delta[i, 0]),
                naive_many.added(tiny_lm, names[1], text.lookup, delta[i, 1]),
            ):
                expected = naive.all_logits(tiny_lm, text.row.ids)[text.lookup :]
            torch.testing.assert_close(logits(tiny_lm, final[i, : len(expected)]), expected, atol=1e-4, rtol=1e-4)
            assert (expected - unchanged).abs().max() > 0.1


def test_the_place_decides_the_bound_alone(tiny_gpt2: LanguageModel) -> None:
    """δ on the MLP's output and on the block's is the same, but for the norm of v_0."""
    free = replace(SETTINGS, clamp_norm_factor=1e6, weight_decay=0.0)
    found = {
        place: replace(FINDER, place=place, settings=free)(tiny_gpt2, texts_of(tiny_gpt2)) for place in ("mlp", "block")
    }
    torch.testing.assert_close(found["mlp"].delta, found["block"].delta)
    assert (found["mlp"].initial - found["block"].initial).norm() > 0.1
    bound = replace(SETTINGS, clamp_norm_factor=0.1)
    held = replace(FINDER, settings=bound)(tiny_gpt2, texts_of(tiny_gpt2))
    shares = held.delta.norm(dim=-1) / held.initial.norm(dim=-1)
    assert float(shares.max()) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize(("said_kl", "factor"), [(1e-9, 0.1), (1e9, 0.1), (1e-9, 0.5)])
def test_a_target_that_is_said(tiny_gpt2: LanguageModel, said_kl: float, factor: float) -> None:
    """PMET: the NLL counts less in the next pass; or it ends, if the KL term is small. At the prompt's last token even
    a random model can be steered.
    """
    settings = replace(
        SETTINGS, n_steps=20, lr=0.7, clamp_norm_factor=20.0, said_nll_factor=factor, said_kl_threshold=said_kl
    )
    finder = replace(FINDER, place="mlp_and_attention", settings=settings)
    number = 2  # a target of one token, which is said after some passes
    texts = texts_of(tiny_gpt2, [number], fact_token="last")
    found = finder(tiny_gpt2, texts)
    plain = naive_many.pmet_value(
        tiny_gpt2,
        1,
        naive_many.texts_of(tiny_gpt2, REQUESTS[number], TEMPLATES, fact_token="last"),
        steps=20,
        lr=0.7,
        kl_factor=0.0625,
        clamp=20.0,
        said_factor=factor,
        said_kl=said_kl,
    )
    assert found.trajectories[0].loss == pytest.approx(plain[1], abs=1e-3)
    assert float((found.values[0, 0] - plain[0]).norm() / plain[0].norm()) < 1e-3
    never = replace(finder, settings=replace(settings, said_nll_factor=None, said_kl_threshold=None))
    assert never(tiny_gpt2, texts).trajectories[0].loss != found.trajectories[0].loss


class TestCache:
    def count(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The sizes of the batches that are optimized from now on."""
        sizes: list[int] = []
        real = module.optimize_values

        def counted(lm: LanguageModel, buckets: Any, initial: torch.Tensor, **settings: Any) -> Any:
            sizes.append(len(initial))
            return real(lm, buckets, initial, **settings)

        monkeypatch.setattr(module, "optimize_values", counted)
        return sizes

    def test_a_found_batch_is_not_optimized_again(
        self, tiny_gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a kill: of four requests in batches of two, the first two were finished."""
        finder, texts = replace(FINDER, cache_dir=tmp_path), texts_of(tiny_gpt2)
        sizes = self.count(monkeypatch)
        finder(tiny_gpt2, texts[:2])
        found = finder(tiny_gpt2, texts)
        assert sizes == [2, 2]
        whole = FINDER(tiny_gpt2, texts)
        assert torch.equal(found.values, whole.values)
        assert found.trajectories == whole.trajectories
        again = finder(tiny_gpt2, texts)
        assert torch.equal(again.values, whole.values)
        assert sizes == [2, 2, 2, 2]  # the two of `whole`, and none of `again`

    @pytest.mark.parametrize(
        "change",
        [
            {"edited_by": "another edit"},
            {"layer": 2},
            {"place": "mlp"},
            {"settings": replace(SETTINGS, lr=0.4)},
            {"settings": replace(SETTINGS, clamp_norm_factor=3.0)},
        ],
    )
    def test_everything_that_matters_is_in_the_key(
        self, tiny_gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
    ) -> None:
        finder, texts = replace(FINDER, cache_dir=tmp_path), texts_of(tiny_gpt2)[:2]
        finder(tiny_gpt2, texts)
        sizes = self.count(monkeypatch)
        replace(finder, **change)(tiny_gpt2, texts)
        finder(tiny_gpt2, texts[::-1])
        finder(tiny_gpt2, [[replace(text, targets=(7,)) if text.targets else text for text in row] for row in texts])
        finder(tiny_gpt2, [row[:2] + row[3:] for row in texts])
        assert sizes == [2, 2, 2, 2]

    def test_another_model_and_a_damaged_file(
        self, tiny_gpt2: LanguageModel, tiny_llama_bos: LanguageModel, tmp_path: Path
    ) -> None:
        finder, texts = replace(FINDER, cache_dir=tmp_path), texts_of(tiny_gpt2)[:2]
        first: TargetValues = finder(tiny_gpt2, texts)
        finder(tiny_llama_bos, texts)
        files = list((tmp_path / "target_values").iterdir())
        assert len(files) == 2
        for file in files:
            file.write_bytes(file.read_bytes()[:100])
        assert torch.equal(finder(tiny_gpt2, texts).values, first.values)
