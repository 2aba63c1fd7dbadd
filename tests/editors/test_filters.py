"""RECT keeps the largest relative changes; PRUNE holds large singular values back, and replaces the edit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from edit_cases import REQUESTS, resources
from many_cases import MEMIT
from rome_cases import ROME

from romexp.editors.base import Edit
from romexp.editors.filters import RECT_SHARE, filtered
from romexp.editors.finetune import FineTune
from romexp.editors.sequence import edit_together
from romexp.errors import ConfigError
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, LowRank, WeightDelta

NAME = "{}.weight"


def low_rank(lm: LanguageModel, scale: float) -> tuple[str, LowRank]:
    name = f"{lm.architecture.mlp_out_name(1)}.weight"
    width, hidden = weight_in_out(lm, name).shape
    return name, LowRank(left=scale * torch.randn(width, 3), right=torch.randn(hidden, 3))


class TestRect:
    def test_the_largest_relative_changes_stay(self, tiny_lm: LanguageModel) -> None:
        name, term = low_rank(tiny_lm, 1.0)
        (kept,) = filtered(tiny_lm, WeightDelta(terms={name: term}), "rect").terms.values()
        change, relative = term.dense(), (term.dense() / weight_in_out(tiny_lm, name)).abs()
        stays = kept.dense() != 0
        assert int(stays.sum()) == round(RECT_SHARE * change.numel())
        assert torch.equal(kept.dense()[stays], change[stays])
        assert relative[stays].min() >= relative[~stays].max()
        assert change.abs()[stays].min() < change.abs()[~stays].max()  # a control: it is not the absolute change

    def test_it_looks_at_the_weights_as_they_are_by_now(self, tiny_gpt2: LanguageModel) -> None:
        name, term = low_rank(tiny_gpt2, 1.0)
        earlier = WeightDelta(terms={name: Dense(value=torch.randn(term.shape))})
        delta = WeightDelta(terms={name: term})
        (alone,), (after,) = (
            filtered(tiny_gpt2, delta, "rect", before=before).terms.values() for before in (None, earlier)
        )
        relative = (term.dense() / (weight_in_out(tiny_gpt2, name) + earlier.terms[name].dense())).abs()
        stays = after.dense() != 0
        assert relative[stays].min() >= relative[~stays].max()
        assert not torch.equal(alone.dense(), after.dense())


class TestPrune:
    @pytest.mark.parametrize("kind", [LowRank, Dense])
    def test_large_singular_values_become_smaller(self, tiny_lm: LanguageModel, kind: type) -> None:
        name, term = low_rank(tiny_lm, 3.0)
        given = term if kind is LowRank else Dense(value=term.dense())
        (held,) = filtered(tiny_lm, WeightDelta(terms={name: given}), "prune").terms.values()
        assert isinstance(held, kind)
        u, sigma, vh = torch.linalg.svd(term.dense().double(), full_matrices=False)
        most = torch.linalg.svdvals(weight_in_out(tiny_lm, name).double()).max()
        expected = torch.where(sigma > most, sigma.log() - most.log() + most, sigma)
        assert int((sigma > most).sum()) > 0
        torch.testing.assert_close(held.dense().double(), (u * expected) @ vh, rtol=1e-4, atol=1e-4)

    def test_small_edits_stay(self, tiny_gpt2: LanguageModel) -> None:
        name, term = low_rank(tiny_gpt2, 1e-3)
        assert filtered(tiny_gpt2, WeightDelta(terms={name: term}), "prune").terms[name] is term


@pytest.mark.parametrize("editor", [ROME, FineTune(layer=1, num_steps=3, lr=0.05), MEMIT], ids=lambda e: e.name)
@pytest.mark.parametrize("chosen", ["rect", "prune"])
def test_every_editor_takes_a_filter(tiny_gpt2: LanguageModel, editor: object, chosen: str) -> None:
    """What it gives is the filtered edit: ΔW itself is not in it a second time."""
    plain, held = (
        [e for e in replace(editor, filter=f)(tiny_gpt2, REQUESTS[:2], resources=resources()) if isinstance(e, Edit)]  # type: ignore[type-var, operator]
        for f in (None, chosen)
    )
    assert len(held) == 2
    for one, other in zip(plain, held, strict=True):
        for (name, term), own in zip(
            filtered(tiny_gpt2, one.delta, chosen).terms.items(), other.delta.terms.values(), strict=True
        ):
            assert torch.equal(term.dense(), own.dense()), name
        assert chosen == "prune" or other.delta.norm() < one.delta.norm()


def test_in_a_sequence_prune_holds_the_sum_back_and_rect_each_step(tiny_gpt2: LanguageModel) -> None:
    loud = replace(MEMIT, v_lr=100.0, clamp_norm_factor=1000.0, mom2_update_weight=1e-4)
    plain = edit_together(loud, tiny_gpt2, REQUESTS[:2], resources=resources())
    pruned = edit_together(replace(loud, filter="prune"), tiny_gpt2, REQUESTS[:2], resources=resources())
    assert pruned.state.delta.digest == plain.state.delta.digest
    assert pruned.delta.digest == filtered(tiny_gpt2, plain.delta, "prune").digest != plain.delta.digest
    rect = edit_together(replace(loud, filter="rect"), tiny_gpt2, REQUESTS[:2], resources=resources())
    assert rect.delta.digest == rect.state.delta.digest == filtered(tiny_gpt2, plain.delta, "rect").digest


def test_another_filter_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"editor\.filter: 'best' is none of rect, prune, null"):
        replace(ROME, filter="best")  # type: ignore[arg-type]
