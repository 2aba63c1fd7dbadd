"""What a network is trained to do: L = c_edit · L_e + c_loc · L_loc (docs/method.md §4.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from romexp.editors.learned.base import EditNetwork
from romexp.editors.learned.factors import edit_factors
from romexp.editors.targets import read_targets
from romexp.learning.draws import Draw
from romexp.lm.apply_delta import overlay
from romexp.lm.forward import BlockInputs, Row, layer_of, logits, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta


@dataclass(frozen=True, kw_only=True, eq=False)
class Losses:
    """Losses of some edits, each of its own edited model.

    Attributes:
        edit: (edits) NLL of the target on the outer texts, a mean over tokens and texts.
        locality: (edits) KL(before ‖ after) on the locality texts, a mean over the tokens of all of them.
        accuracy: (edits) share of outer texts of which every target token is the arg-max.
    """

    edit: torch.Tensor
    locality: torch.Tensor
    accuracy: torch.Tensor


def losses(lm: LanguageModel, network: EditNetwork, draws: Sequence[Draw]) -> Losses:
    """Edit by each draw's text and judge the edited models, all in one batch; differentiable in the network."""
    factors = edit_factors(lm, [draw.text for draw in draws], network.edited)
    deltas = network(factors)
    start = min(layer_of(lm, name) for name in network.edited)
    edit, accuracy = _on_targets(lm, deltas, draws, start)
    return Losses(edit=edit, locality=_on_locality(lm, deltas, draws, start), accuracy=accuracy)


def _on_targets(
    lm: LanguageModel, deltas: Sequence[WeightDelta], draws: Sequence[Draw], start: int
) -> tuple[torch.Tensor, torch.Tensor]:
    texts = [text for draw in draws for text in draw.outers]
    owners = [i for i, draw in enumerate(draws) for _ in draw.outers]
    inputs = make_inputs(lm, [Row.text(text.ids[:-1]) for text in texts])
    hidden = _below(lm, inputs, start)
    with overlay(lm, [deltas[i] for i in owners]):
        final = run_blocks(lm, inputs, start=start, hidden=hidden)
    said = read_targets(lm, final, [text.spots for text in texts])
    return _mean_by(said.nll(), owners, len(draws)), _mean_by(said.right(), owners, len(draws))


def _on_locality(lm: LanguageModel, deltas: Sequence[WeightDelta], draws: Sequence[Draw], start: int) -> torch.Tensor:
    texts = [ids for draw in draws for ids in draw.locality]
    owners = [i for i, draw in enumerate(draws) for _ in draw.locality]
    inputs = make_inputs(lm, [Row.text(ids) for ids in texts])
    hidden = _below(lm, inputs, start)
    with torch.no_grad():
        before = run_blocks(lm, inputs, start=start, hidden=hidden)
    with overlay(lm, [deltas[i] for i in owners]):
        after = run_blocks(lm, inputs, start=start, hidden=hidden)
    lengths = torch.tensor([len(ids) for ids in texts], device=after.device)
    real = torch.arange(after.shape[1], device=after.device)[None] < lengths[:, None]
    divergence = _kl(logits(lm, before[real]), logits(lm, after[real]))
    by_token = [owner for owner, ids in zip(owners, texts, strict=True) for _ in ids]
    return _mean_by(divergence, by_token, len(draws))


@torch.no_grad()
def _below(lm: LanguageModel, inputs: BlockInputs, start: int) -> torch.Tensor | None:
    """The state that enters the lowest edited block: the same for every edited model."""
    return run_blocks(lm, inputs, stop=start) if start > 0 else None


def _kl(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """KL(before ‖ after) of (tokens × vocabulary) logits, (tokens)."""
    log_p, log_q = before.log_softmax(dim=-1), after.log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _mean_by(values: torch.Tensor, owners: Sequence[int], count: int) -> torch.Tensor:
    """Means of the values of each owner, (count)."""
    index = torch.tensor(owners, device=values.device)
    sums = values.new_zeros(count).index_add(0, index, values)
    return sums / torch.bincount(index, minlength=count).to(values.dtype)
