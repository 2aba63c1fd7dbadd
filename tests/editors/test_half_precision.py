"""bfloat16 is the type of the model's own passes, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from edit_cases import no_moment
from torch.utils._python_dispatch import TorchDispatchMode

from romexp.editors.base import Resources
from romexp.editors.finetune import FineTune
from romexp.editors.kn.attribution import Text, attribute
from romexp.editors.rome.editor import Rome
from romexp.errors import raise_first_error
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import score
from romexp.lm.weight_delta import LowRank

REQUEST = EditRequest(subject="Steve Jobs", prompt="{} plays the", target_new="violin", target_true="piano")


class _Types(TorchDispatchMode):
    """Records the types of what a softmax, a loss and a norm of δ are computed of."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen.setdefault(str(function), set()).update(x.dtype for x in args if isinstance(x, torch.Tensor))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_in_bfloat16_losses_values_and_updates_are_float32(
    tiny_factory: Callable[..., LanguageModel], family: str
) -> None:
    """Only the model's own passes are in bfloat16: softmax over the vocabulary, losses, δ, v*, u and Λ are not."""
    half = tiny_factory(family)
    half.model.to(torch.bfloat16)
    with _Types() as types:
        editors = (
            Rome(layer=1, v_num_grad_steps=3, mom2_adjustment=False, context_templates=["{}", "Paris. {}"]),
            FineTune(layer=1, num_steps=3),
        )
        edits = [
            raise_first_error(e(half, [REQUEST], resources=Resources(second_moment=no_moment)))[0] for e in editors
        ]
        raise_first_error(score(half, [Query(prompt=REQUEST.text, targets=("violin",))]))
    with _Types() as sums:
        (found,) = attribute(half, [Text(ids=(3, 4, 5), targets=(6, 7))], steps=4)
    for name in ("aten._log_softmax.default", "aten._log_softmax_backward_data.default", "aten.index_add.default"):
        assert torch.bfloat16 not in types.seen[name], name
    assert torch.bfloat16 in types.seen["aten.mm.default"] | types.seen.get("aten.addmm.default", set())  # the control
    for edit in edits:
        for term in edit.delta.terms.values():
            parts = (term.left, term.right) if isinstance(term, LowRank) else (term.value,)
            assert {part.dtype for part in parts} == {torch.float32}
    assert found.scores.dtype == torch.float32
    if family == "gpt2":  # Llama's own backward pass sums over shared heads.
        assert sums.seen["aten.sum.dim_IntList"] == {torch.float32}
