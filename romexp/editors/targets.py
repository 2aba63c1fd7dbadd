"""The tokens of a prompt and its target, and the NLL of the target, which is the loss of most editors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from romexp.errors import RecordError
from romexp.facts import answer_text, with_answer
from romexp.lm.forward import check_known, check_length, logits
from romexp.lm.model import LanguageModel
from romexp.lm.packing import target_start
from romexp.lm.tokens import encode

Spot = tuple[int, int]
"""A token position of a text, and the token that the model should predict there."""


@dataclass(frozen=True, kw_only=True)
class EditText:
    """The tokens of a prompt followed by its target.

    Attributes:
        ids: token ids of prompt and target.
        target_start: index of the target's first token; the loss is taken over `ids[target_start:]`.

    Raises:
        ValueError: `target_start` leaves no prompt or no target.
    """

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
        """For each target token, the position of the token before it, where it is predicted, and the token itself."""
        return tuple(enumerate(self.targets, start=self.target_start - 1))


def edit_text(lm: LanguageModel, prompt: str, target: str) -> EditText:
    """Tokenize a prompt and its target as one text and find the target's tokens by character offset.

    Args:
        prompt: the prompt with the subject filled in.
        target: the target; white space around it is removed.

    Raises:
        RecordError: the target is empty, the prompt or the target has no token of its own, or the text is too long.
    """
    if not answer_text(target):
        raise RecordError("the new target is empty", field="target_new")
    (encoding,) = encode(lm.tokenizer, [with_answer(prompt, target)])
    start = target_start(encoding, len(prompt))
    check_length(lm, len(encoding) - 1)
    check_known(lm, encoding.ids)
    return EditText(ids=encoding.ids, target_start=start)


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetReading:
    """A model's predictions at the spots of some texts.

    Attributes:
        n_texts: number of texts.
        rows: index of the text of each spot (spots) int64.
        tokens: the token that should be predicted at each spot (spots) int64.
        weights: the weight of each spot in its text's mean, 1 / (number of spots of the text) (spots).
        log_p: log-probabilities of all tokens at each spot (spots × vocabulary), differentiable.
    """

    n_texts: int
    rows: torch.Tensor
    tokens: torch.Tensor
    weights: torch.Tensor
    log_p: torch.Tensor

    def nll(self) -> torch.Tensor:
        """Mean of -log p, in nats, over each text's spots (texts); 0 for a text without spots."""
        chosen = self.log_p.gather(1, self.tokens[:, None])[:, 0] * self.weights
        return -self.log_p.new_zeros(self.n_texts).index_add(0, self.rows, chosen)

    @torch.no_grad()
    def right(self) -> torch.Tensor:
        """1 for each text for which the most likely token is right at all of its spots, else 0 (texts)."""
        wrong = (self.log_p.argmax(dim=-1) != self.tokens).float()
        return (wrong.new_zeros(self.n_texts).index_add(0, self.rows, wrong) == 0).float()


def read_targets(lm: LanguageModel, final: torch.Tensor, spots: Sequence[Sequence[Spot]]) -> TargetReading:
    """Read the predictions at the spots of each text.

    Args:
        final: states after the final norm (texts × tokens × hidden size), from `romexp.lm.forward.run_blocks`.
        spots: the spots of each text. A text may have none, but at least one text must have some.
    """
    flat = [(i, *spot, 1 / len(text_spots)) for i, text_spots in enumerate(spots) for spot in text_spots]
    rows, columns, tokens, weights = (torch.tensor(part, device=final.device) for part in zip(*flat, strict=True))
    log_p = logits(lm, final[rows, columns]).log_softmax(dim=-1)
    return TargetReading(n_texts=len(spots), rows=rows, tokens=tokens, weights=weights, log_p=log_p)
