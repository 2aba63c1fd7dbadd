"""Networks and texts that the tests of MEND and KE share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from edit_cases import REQUESTS

from romexp.editors.learned.editor import KE, Mend
from romexp.editors.learned.factors import EditFactors, edit_factors
from romexp.editors.learned.ke import KeNetwork
from romexp.editors.learned.mend import MendNetwork
from romexp.editors.targets import EditText, edit_text, read_targets
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta

MEND = Mend(rank=8, n_layers=2)
SMALL_KE = KE(hidden_size=6, condition_size=5, n_layers=2)


def texts_of(lm: LanguageModel, requests: Sequence[EditRequest] = REQUESTS) -> list[EditText]:
    return [edit_text(lm, request.text, request.target_new) for request in requests]


def factors_of(lm: LanguageModel, names: tuple[str, ...], requests: Sequence[EditRequest] = REQUESTS) -> EditFactors:
    return edit_factors(lm, texts_of(lm, requests), names)


def weight_gradient(factors: EditFactors, name: str) -> torch.Tensor:
    """∇W of every request, (requests × in × out)."""
    return factors.inputs[name].mT @ factors.gradients[name]


def losses_of(lm: LanguageModel, final: torch.Tensor, texts: Sequence[EditText]) -> torch.Tensor:
    """Mean NLL of each text's target."""
    return read_targets(lm, final, [text.spots for text in texts]).nll()


def one(factors: EditFactors, i: int) -> EditFactors:
    """The factors of one request of a batch."""
    return EditFactors(
        inputs={name: x[i : i + 1] for name, x in factors.inputs.items()},
        gradients={name: x[i : i + 1] for name, x in factors.gradients.items()},
        masks={name: x[i : i + 1] for name, x in factors.masks.items()},
        ids=factors.ids[i : i + 1],
        losses=factors.losses[i : i + 1],
    )


def born_mend(lm: LanguageModel) -> MendNetwork:
    """Untrained, with statistics of the four requests, in evaluation mode."""
    network = MEND.new_network(lm, seed=0)
    network(factors_of(lm, network.edited))
    return network.eval()


def born_ke(lm: LanguageModel) -> KeNetwork:
    return SMALL_KE.new_network(lm, seed=0).eval()


def distance(delta: WeightDelta, expected: dict[str, torch.Tensor]) -> float:
    """The largest relative distance over the parameters; both must have the same ones."""
    assert set(delta.terms) == set(expected)
    return max(
        float((delta.terms[name].dense().detach() - value).norm() / value.norm()) for name, value in expected.items()
    )


def dense(delta: WeightDelta) -> dict[str, torch.Tensor]:
    return {name: term.dense().detach() for name, term in delta.terms.items()}
