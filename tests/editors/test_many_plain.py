"""The editors of many facts against the plain computation, on every family; values and edits of a batch and alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import naive_many
import pytest
import torch
from edit_cases import REQUESTS, TEMPLATES, moment, resources
from many_cases import ALPHAEDIT, EDITORS, EMMET, MEMIT, PMET, SIZES, THRESHOLD, dense, distance

from romexp.editors.base import Edit
from romexp.editors.many.base import SpreadEditor
from romexp.editors.rome.editor import Rome
from romexp.editors.sequence import edit_together
from romexp.lm.model import LanguageModel

C = moment().double()


def solve(weight: float) -> naive_many.Adjoint:
    return lambda keys: torch.linalg.solve(weight * C + keys @ keys.T, keys)


def project(keys: torch.Tensor) -> torch.Tensor:
    """AlphaEdit's update as its authors solve it."""
    values, vectors = torch.linalg.eigh(C)
    p = vectors[:, values < THRESHOLD] @ vectors[:, values < THRESHOLD].T
    return torch.linalg.solve(p @ keys @ keys.T + ALPHAEDIT.L2 * torch.eye(len(C)), p @ keys)


def rome_direction(keys: torch.Tensor) -> torch.Tensor:
    """EMMET without a ridge, for one key."""
    u = torch.linalg.solve(C, keys)
    return u / (keys.T @ u)


def plain(
    lm: LanguageModel, numbers: list[int], layers: list[int], adjoint: naive_many.Adjoint, **spread: Any
) -> list[torch.Tensor]:
    texts = [naive_many.texts_of(lm, REQUESTS[i], TEMPLATES) for i in numbers]
    if spread.get("root"):
        settings = {"steps": 4, "lr": PMET.v_lr, "kl_factor": PMET.kl_factor, "clamp": 2.0}
        values = [naive_many.pmet_value(lm, layers[-1], each, **settings)[0] for each in texts]  # type: ignore[arg-type]
    else:
        values = [naive_many.memit_value(lm, layers[-1], each, steps=4, clamp=2.0) for each in texts]
    return naive_many.spread(lm, texts, values, SIZES, layers=layers, adjoint=adjoint, **spread)


def assert_edit(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Measured 3e-5."""
    assert distance(found, expected) < 1e-3
    assert min(float(delta.norm()) for delta in expected) > 1e-3


def test_memit_on_every_family(tiny_lm: LanguageModel, guard: Callable[[LanguageModel], None]) -> None:
    guard(tiny_lm)
    numbers = [0, 1, 3]
    made = edit_together(MEMIT, tiny_lm, [REQUESTS[i] for i in numbers], resources=resources())
    expected = plain(tiny_lm, numbers, [1, 2], solve(2.0))
    names = [f"{tiny_lm.architecture.mlp_out_name(layer)}.weight" for layer in (1, 2)]
    assert list(made.delta.terms) == names
    assert_edit(dense(made.delta), expected)
    # Controls: each layer matters, and so does that the first is edited before the second.
    assert distance(dense(made.delta), expected[::-1]) > 0.1


def test_pmet_on_every_family(tiny_lm: LanguageModel, guard: Callable[[LanguageModel], None]) -> None:
    guard(tiny_lm)
    made = edit_together(PMET, tiny_lm, [REQUESTS[2], REQUESTS[1]], resources=resources())
    assert_edit(dense(made.delta), plain(tiny_lm, [2, 1], [1, 2], solve(2.0), root=True, at="mlp"))


@pytest.mark.parametrize(
    ("editor", "layers", "adjoint", "spread"),
    [
        (MEMIT, [1, 2], solve(2.0), {}),
        (PMET, [0, 1], solve(2.0), {"root": True, "at": "mlp"}),
        (EMMET, [2], rome_direction, {}),
        (ALPHAEDIT, [1, 2], project, {}),
        (MEMIT, [0, 2], solve(2.0), {}),
    ],
)
def test_requests_alone(
    tiny_gpt2: LanguageModel, editor: SpreadEditor, layers: list[int], adjoint: naive_many.Adjoint, spread: Any
) -> None:
    """In one call, but each by itself; the first layer too.

    Not the last one: there a change at the subject reaches no answer, and the optimization follows rounding errors.
    """
    found = replace(editor, layers=layers)(tiny_gpt2, REQUESTS[:2], resources=resources())
    for i, edit in enumerate(found):
        assert isinstance(edit, Edit)
        assert_edit(dense(edit.delta), plain(tiny_gpt2, [i], layers, adjoint, **spread))
    assert distance(dense(found[0].delta), dense(found[1].delta)) > 0.1  # type: ignore[union-attr]


@pytest.mark.parametrize("editor", EDITORS, ids=lambda editor: editor.name)
def test_the_order_of_a_batch_does_not_matter(tiny_gpt2: LanguageModel, editor: SpreadEditor) -> None:
    """Nor does the number of values that are optimized together."""
    one = edit_together(editor, tiny_gpt2, REQUESTS, resources=resources())
    other = edit_together(replace(editor, batch_size=3), tiny_gpt2, REQUESTS[::-1], resources=resources())
    assert distance(dense(one.delta), dense(other.delta)) < 1e-3
    fewer = edit_together(editor, tiny_gpt2, REQUESTS[1:], resources=resources())
    assert distance(dense(one.delta), dense(fewer.delta)) > 0.05


def test_one_request_with_little_weight_is_romes_direction(tiny_gpt2: LanguageModel) -> None:
    """In the bare prompt alone, where both methods have the same key."""
    rome = Rome(layer=2, context_templates=["{}"], v_num_grad_steps=2)
    (expected,) = rome(tiny_gpt2, REQUESTS[:1], resources=resources())
    ((_, term),) = expected.delta.terms.items()  # type: ignore[union-attr]
    for editor, same in (
        (EMMET, True),
        (replace(MEMIT, layers=(2,), mom2_update_weight=1e-6), True),
        (replace(MEMIT, layers=(2,), mom2_update_weight=50.0), True),  # less of it, but the same direction
        (replace(ALPHAEDIT, layers=(2,)), False),
    ):
        (found,) = replace(editor, context_templates=["{}"])(tiny_gpt2, REQUESTS[:1], resources=resources())
        ((_, own),) = found.delta.terms.items()  # type: ignore[union-attr]
        cosine = float((own.left[:, 0] @ term.left[:, 0]) / own.left.norm() / term.left.norm())  # type: ignore[union-attr]
        assert (cosine > 1 - 1e-5) is same


def test_alphaedit_leaves_large_directions_alone(tiny_gpt2: LanguageModel) -> None:
    """What the second moment says is often a key keeps its value; under MEMIT it does not."""
    values, vectors = torch.linalg.eigh(C)
    large = vectors[:, values >= THRESHOLD].float()
    for editor, kept in ((ALPHAEDIT, True), (MEMIT, False)):
        delta = edit_together(editor, tiny_gpt2, REQUESTS, resources=resources()).delta
        for change in dense(delta):
            share = float((large.T @ change).norm() / change.norm())
            assert (share < 1e-5) is kept, (editor.name, share)
