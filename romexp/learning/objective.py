"""The two losses of training, L_e and L_loc in L = c_edit · L_e + c_loc · L_loc (docs/method.md §4.6)."""

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
    """Losses of a batch of edits, each measured on its own edited model. All tensors are (edits).

    Attributes:
        edit: L_e, the mean NLL of the target on the judging texts (over the target's tokens, then over texts), in nats.
        locality: L_loc, the mean of KL(before ‖ after) over all tokens of the locality texts, in nats.
        accuracy: share of the judging texts for which each token of the target is the most likely one.
    """

    edit: torch.Tensor
    locality: torch.Tensor
    accuracy: torch.Tensor


def losses(lm: LanguageModel, network: EditNetwork, draws: Sequence[Draw]) -> Losses:
    """Edit the model by the text of each draw, and measure the edited models in one batch.

    The losses are differentiable in the network's parameters.
    """
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
    hidden = _state_below(lm, inputs, start)
    with overlay(lm, [deltas[i] for i in owners]):
        final = run_blocks(lm, inputs, start=start, hidden=hidden)
    targets = read_targets(lm, final, [text.spots for text in texts])
    return _mean_by(targets.nll(), owners, len(draws)), _mean_by(targets.right(), owners, len(draws))


def _on_locality(lm: LanguageModel, deltas: Sequence[WeightDelta], draws: Sequence[Draw], start: int) -> torch.Tensor:
    texts = [ids for draw in draws for ids in draw.locality]
    owners = [i for i, draw in enumerate(draws) for _ in draw.locality]
    inputs = make_inputs(lm, [Row.text(ids) for ids in texts])
    hidden = _state_below(lm, inputs, start)
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
def _state_below(lm: LanguageModel, inputs: BlockInputs, start: int) -> torch.Tensor | None:
    """The input of block `start`, the lowest edited one (None if it is block 0). It is equal for all edited models."""
    return run_blocks(lm, inputs, stop=start) if start > 0 else None


def _kl(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """KL(before ‖ after) at each token, from logits: (tokens × vocabulary) → (tokens)."""
    log_p, log_q = before.log_softmax(dim=-1), after.log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _mean_by(values: torch.Tensor, owners: Sequence[int], count: int) -> torch.Tensor:
    """The mean of the values of each owner: (values) → (count).

    Args:
        owners: for each value its owner, from 0 to `count` - 1.
    """
    index = torch.tensor(owners, device=values.device)
    sums = values.new_zeros(count).index_add(0, index, values)
    return sums / torch.bincount(index, minlength=count).to(values.dtype)
