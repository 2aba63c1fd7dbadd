"""A prompt with its target in tokens, and the loss that editors lower: how unlikely a model finds the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from romexp.errors import RecordError
from romexp.lm.forward import check_length, logits
from romexp.lm.model import LanguageModel
from romexp.lm.scoring import target_start
from romexp.lm.tokens import encode

Spot = tuple[int, int]
"""A column of a text, and the token that is to be predicted there."""


@dataclass(frozen=True, kw_only=True)
class EditText:
    """A prompt with its target: `ids[target_start:]` are the tokens that count in the loss."""

    ids: tuple[int, ...]
    target_start: int

    def __post_init__(self) -> None:
        if not 0 < self.target_start < len(self.ids):
            raise ValueError(
                f"target_start {self.target_start} leaves no prompt or no target in {len(self.ids)} tokens"
            )

    @property
    def targets(self) -> tuple[int, ...]:
        return self.ids[self.target_start :]

    @property
    def spots(self) -> tuple[Spot, ...]:
        """Where each target token is predicted, all before it being given."""
        return tuple(enumerate(self.targets, start=self.target_start - 1))


def edit_text(lm: LanguageModel, prompt: str, target: str) -> EditText:
    """Tokenize `prompt + " " + target`; the target's tokens are found by character offset.

    Args:
        prompt: with the subject filled in.
        target: white space around it does not count.

    Raises:
        RecordError: the target is empty, prompt or target has no token of its own, or the text is too long.
    """
    if not target.strip():
        raise RecordError("the new target is empty", field="target_new")
    (encoding,) = encode(lm.tokenizer, [f"{prompt} {target.strip()}"])
    start = target_start(encoding, len(prompt))
    check_length(lm, len(encoding) - 1)
    return EditText(ids=encoding.ids, target_start=start)


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetReading:
    """What a model says at the spots of some texts.

    Attributes:
        n_texts: how many texts there are.
        rows: the text of each spot (spots) int64.
        tokens: the token of each spot (spots) int64.
        weights: of each spot in its text's mean (spots).
        log_p: of every token there (spots × vocabulary), differentiable.
    """

    n_texts: int
    rows: torch.Tensor
    tokens: torch.Tensor
    weights: torch.Tensor
    log_p: torch.Tensor

    def nll(self) -> torch.Tensor:
        """Mean of -log p over each text's spots (texts), 0 for a text without any."""
        chosen = self.log_p.gather(1, self.tokens[:, None])[:, 0] * self.weights
        return -self.log_p.new_zeros(self.n_texts).index_add(0, self.rows, chosen)

    @torch.no_grad()
    def right(self) -> torch.Tensor:
        """1 for each text of which every spot's token is the arg-max, else 0 (texts)."""
        wrong = (self.log_p.argmax(dim=-1) != self.tokens).float()
        return (wrong.new_zeros(self.n_texts).index_add(0, self.rows, wrong) == 0).float()


def read_targets(lm: LanguageModel, final: torch.Tensor, spots: Sequence[Sequence[Spot]]) -> TargetReading:
    """Read each text's spots, at least one in all.

    Args:
        final: (texts × tokens × hidden size) as `romexp.lm.forward.run_blocks` returns it.
    """
    flat = [(i, *spot, 1 / len(own)) for i, own in enumerate(spots) for spot in own]
    rows, columns, tokens, weights = (torch.tensor(part, device=final.device) for part in zip(*flat, strict=True))
    log_p = logits(lm, final[rows, columns]).log_softmax(dim=-1)
    return TargetReading(n_texts=len(spots), rows=rows, tokens=tokens, weights=weights, log_p=log_p)
