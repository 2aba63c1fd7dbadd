"""Sequences of edits: a state that is a value, edits that add up, errors in their place, weights as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from edit_cases import REQUESTS, moment, relative, resources
from many_cases import ALPHAEDIT, EDITORS, EMMET, MEMIT, dense, distance
from rome_cases import ROME

from romexp.editors.base import Editor
from romexp.editors.many.base import SpreadEditor
from romexp.editors.sequence import SequenceState, edit_together
from romexp.errors import ConfigError, DataError, RecordError
from romexp.lm.apply_delta import applied, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, LowRank, WeightDelta, total

FIRST, SECOND = REQUESTS[:2], REQUESTS[2:]


def two_steps(editor: Editor, lm: LanguageModel, state: SequenceState | None = None) -> list[SequenceState]:
    states = []
    for requests in (FIRST, SECOND):
        state = edit_together(editor, lm, requests, resources=resources(), state=state).state
        states.append(state)
    return states


@pytest.mark.parametrize("editor", [*EDITORS, ROME], ids=lambda editor: editor.name)
def test_weights_come_back_and_sequences_share_nothing(
    tiny_gpt2: LanguageModel, guard: Callable[[LanguageModel], None], editor: Editor
) -> None:
    """A second sequence in the same process gives the same bits, whatever the first has done."""
    guard(tiny_gpt2)
    one, other = two_steps(editor, tiny_gpt2), two_steps(editor, tiny_gpt2)
    assert [state.delta.digest for state in one] == [state.delta.digest for state in other]
    assert one[0].delta.digest != one[1].delta.digest
    assert [state.n_edits for state in one] == [2, 4]


@pytest.mark.parametrize("editor", [MEMIT, ALPHAEDIT], ids=lambda editor: editor.name)
def test_a_state_survives_its_file(tiny_gpt2: LanguageModel, tmp_path: Path, editor: SpreadEditor) -> None:
    first, second = two_steps(editor, tiny_gpt2)
    assert {layer: tuple(keys.shape) for layer, keys in first.keys.items()} == {1: (2, 64), 2: (2, 64)}
    first.save(tmp_path / "state.safetensors", metadata={"edits": 2})
    read, said = SequenceState.load(tmp_path / "state.safetensors")
    assert (read.n_edits, said["edits"]) == (2, 2)
    again = edit_together(editor, tiny_gpt2, SECOND, resources=resources(), state=read).state
    assert again.delta.digest == second.delta.digest
    assert all(torch.equal(again.keys[layer], second.keys[layer]) for layer in (1, 2))
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.safetensors: not a state of a sequence"):
        SequenceState.load(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("editor", [MEMIT, ALPHAEDIT], ids=lambda editor: editor.name)
def test_earlier_keys_are_kept(tiny_gpt2: LanguageModel, editor: SpreadEditor) -> None:
    """The second batch changes less of what the first batch's keys give."""
    editor = replace(editor, layers=(2,))
    changes = []
    for kept in (True, False):
        first, second = two_steps(replace(editor, earlier_keys=kept), tiny_gpt2)
        assert bool(first.keys) is kept
        (whole,), (before,) = dense(second.delta), dense(first.delta)
        own = edit_together(editor, tiny_gpt2, FIRST, resources=resources()).state.keys[2]
        changes.append(float((own @ (whole - before)).norm()))
    assert changes[0] < 0.5 * changes[1]


def test_kept_keys_are_those_after_the_edit(tiny_gpt2: LanguageModel) -> None:
    """Without a filter they are the keys that were read for the edit. RECT changes the edit, so they are read again."""
    apart = []
    for chosen in (None, "rect"):
        made = edit_together(replace(MEMIT, filter=chosen), tiny_gpt2, FIRST, resources=resources())
        again = MEMIT.keys_after(tiny_gpt2, FIRST, resources=resources(), delta=made.state.delta)
        for layer, keys in made.state.keys.items():
            assert relative(keys, again[layer]) < 1e-5
        read = MEMIT.together(tiny_gpt2, FIRST, resources=resources(), state=SequenceState()).keys
        apart.append(relative(made.state.keys[2], read[2]))
    assert apart[0] == 0
    assert apart[1] > 1e-3


def test_memit_with_earlier_keys_is_its_equation(tiny_gpt2: LanguageModel) -> None:
    """A = (λ C + K_p K_pᵀ + K Kᵀ)⁻¹ K spans the second batch's edit, and no other batch's."""
    editor = replace(MEMIT, layers=(2,))
    first, second = two_steps(editor, tiny_gpt2)
    step = dense(second.delta)[0].double() - dense(first.delta)[0].double()
    kept, keys = first.keys[2].double().T, second.keys[2][2:].double().T
    for system, spans in ((kept @ kept.T, True), (torch.zeros(64, 64).double(), False)):
        adjoint = torch.linalg.solve(2.0 * moment().double() + system + keys @ keys.T, keys)
        q, _ = torch.linalg.qr(adjoint)
        # The keys here are those after the edit; at the edited layer they are those of before.
        outside = float((step - q @ (q.T @ step)).norm() / step.norm())
        assert (outside < 1e-4) is spans


def test_an_editor_of_single_facts_goes_on_from_its_edits(tiny_gpt2: LanguageModel) -> None:
    made = edit_together(ROME, tiny_gpt2, FIRST, resources=resources())
    (one,) = ROME(tiny_gpt2, FIRST[:1], resources=resources())
    with applied(tiny_gpt2, one.delta):  # type: ignore[union-attr]
        (two,) = ROME(tiny_gpt2, FIRST[1:], resources=resources())
    (alone,) = ROME(tiny_gpt2, FIRST[1:], resources=resources())
    expected = dense(total([one.delta, two.delta]))  # type: ignore[union-attr]
    assert distance(dense(made.delta), expected) < 1e-5
    assert distance(dense(two.delta), dense(alone.delta)) > 0.01  # type: ignore[union-attr]


@pytest.mark.parametrize("editor", [MEMIT, ROME], ids=lambda editor: editor.name)
def test_a_bad_request_is_no_part_of_the_edit(tiny_gpt2: LanguageModel, editor: Editor) -> None:
    bad = replace(REQUESTS[2], target_new=" ")
    made = edit_together(editor, tiny_gpt2, [FIRST[0], bad, FIRST[1]], resources=resources())
    good = edit_together(editor, tiny_gpt2, FIRST, resources=resources())
    assert isinstance(made.outcomes[1], RecordError)
    assert made.outcomes[1].field == "target_new"
    assert made.delta.digest == good.delta.digest
    assert made.state.n_edits == 2
    none = edit_together(editor, tiny_gpt2, [bad], resources=resources())
    assert (none.delta.terms, none.state.n_edits) == ({}, 0)


def test_half_precision_is_rounded_once(tiny_factory: Callable[..., LanguageModel]) -> None:
    """Weights of the last step are base + sum, rounded once; not rounded after each step."""
    lm = tiny_factory("gpt2", dtype=torch.bfloat16)
    first, second = two_steps(replace(MEMIT, mom2_update_weight=0.5), lm)
    name = next(iter(second.delta.terms))
    base, whole, one = weight_in_out(lm, name).float(), dense(second.delta)[0], dense(first.delta)[0]
    assert whole.dtype == torch.float32
    with applied(lm, second.delta):
        held = weight_in_out(lm, name).clone()
    assert torch.equal(held, (base + whole).bfloat16())
    twice = ((base + one).bfloat16().float() + (whole - one)).bfloat16()
    assert not torch.equal(held, twice)


@pytest.mark.parametrize("layers", [(), (2, 1), (1, 1)])
def test_layers_must_ascend(layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"editor\.layers: expected layers in ascending order, each once"):
        replace(EMMET, layers=layers)


@pytest.mark.parametrize("layers", [(1, 4), (-1, 2)])
def test_there_must_be_such_layers(tiny_gpt2: LanguageModel, layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"editor\.layers: (4|-1) is outside 0…3 of 'tiny-gpt2'"):
        replace(MEMIT, layers=layers)(tiny_gpt2, FIRST, resources=resources())


def test_layers_by_a_share_of_the_depth(tiny_gpt2: LanguageModel) -> None:
    (edit,) = replace(MEMIT, layers=None, layer_fraction=0.5)(tiny_gpt2, FIRST[:1], resources=resources())
    assert edit.diagnostics["layers"] == [0, 1, 2]  # type: ignore[union-attr]


class TestTotal:
    def test_it_is_the_sum(self) -> None:
        thin = [LowRank(left=torch.randn(40, 2), right=torch.randn(30, 2)) for _ in range(4)]
        full = Dense(value=torch.randn(40, 30))
        for terms, kind in ((thin, LowRank), ([*thin, full], Dense), (thin * 3, Dense)):
            found = total([WeightDelta(terms={"w": term}) for term in terms])
            assert isinstance(found.terms["w"], kind)
            torch.testing.assert_close(found.terms["w"].dense(), sum(t.dense() for t in terms), rtol=1e-4, atol=1e-4)

    def test_of_several_parameters_and_of_nothing(self) -> None:
        one, two = (
            WeightDelta(terms={"a": Dense(value=torch.ones(2))}),
            WeightDelta(terms={"b": Dense(value=torch.ones(3))}),
        )
        assert list(total([one, two]).terms) == ["a", "b"]
        assert total([]).terms == {}
