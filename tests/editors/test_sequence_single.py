"""Editors of single facts as sequences: each request is edited on the model that the one before has left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from edit_cases import REQUESTS, moment, resources
from rome_cases import ROME

from romexp.editors.base import Edit, Editor, Resources
from romexp.editors.finetune import FineTune
from romexp.editors.rome.editor import Rome
from romexp.editors.sequence import SequenceState, edit_together
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import total
from romexp.stats.second_moment import SecondMoment

EDITORS = {
    "rome": ROME,
    "r-rome": replace(ROME, keys="averaged"),
    "ft": FineTune(layer=1, lr=1e-3, num_steps=4),
    "ft_l": FineTune(name="FT+L", layer=1, lr=1e-3, num_steps=4, norm_constraint=1e-3),
}


@pytest.mark.parametrize("name", EDITORS)
def test_each_request_is_edited_on_what_is_left_by_the_one_before(
    tiny_gpt2: LanguageModel, guard: Callable[[LanguageModel], None], name: str
) -> None:
    """In one step or in several, a sequence is what a loop over single edits gives, bit for bit."""
    guard(tiny_gpt2)
    editor: Editor = EDITORS[name]
    at_once = edit_together(editor, tiny_gpt2, REQUESTS, resources=resources())
    state = SequenceState()
    for request in REQUESTS:
        state = edit_together(editor, tiny_gpt2, [request], resources=resources(), state=state).state
    assert state.delta.digest == at_once.state.delta.digest
    assert state.n_edits == len(REQUESTS)
    delta, alone = [], []
    for request in REQUESTS[:2]:
        with applied(tiny_gpt2, total(delta)):
            (made,) = editor(tiny_gpt2, [request], resources=resources())
        (single,) = editor(tiny_gpt2, [request], resources=resources())
        assert isinstance(made, Edit)
        assert isinstance(single, Edit)
        delta.append(made.delta)
        alone.append(single.delta)
    two = edit_together(editor, tiny_gpt2, REQUESTS[:2], resources=resources())
    assert two.delta.digest == total(delta).digest
    assert two.delta.digest != total(alone).digest  # a control: the first edit matters to the second


def test_contexts_and_second_moments_are_those_of_the_original_model(tiny_gpt2: LanguageModel) -> None:
    """Also for a process that goes on from a saved state and has neither in a cache."""
    rome = Rome(layer=1, v_num_grad_steps=3, context_template_length_params=((6, 3),))
    known = rome.prepared(tiny_gpt2, resources=resources())
    assert len(known.context_templates) == 4
    first = edit_together(known, tiny_gpt2, REQUESTS[:1], resources=resources()).state
    large = SequenceState(delta=total([first.delta] * 50), n_edits=1)  # on this model other texts are sampled
    with applied(tiny_gpt2, large.delta):
        assert rome.prepared(tiny_gpt2, resources=resources()).context_templates != known.context_templates
    second = edit_together(rome, tiny_gpt2, REQUESTS[1:2], resources=resources(), state=large).state
    expected = edit_together(known, tiny_gpt2, REQUESTS[1:2], resources=resources(), state=large).state
    assert second.delta.digest == expected.delta.digest

    weights: list[torch.Tensor] = []
    name = f"{tiny_gpt2.architecture.mlp_out_name(1)}.weight"
    measured = SecondMoment(matrix=moment(), count=0)
    watched = Resources(
        second_moment=lambda layer: measured,
        prepare=lambda layers: weights.append(tiny_gpt2.parameter(name).detach().clone()),
    )
    edit_together(rome, tiny_gpt2, REQUESTS[1:2], resources=watched, state=large)
    assert len(weights) == 1
    assert torch.equal(weights[0], tiny_gpt2.parameter(name))
