"""From text to token ids and back to positions. Positions always come from character offsets on the whole string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from romexp.errors import RecordError

FactToken = Literal["subject_first", "subject_last", "subject_first_after_last", "last"]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """One text: token ids and each token's character range [start, end)."""

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.ids)

    def first_token_after(self, char: int) -> int:
        """Index of the first token that ends after character `char`; the number of tokens if there is none."""
        return next((i for i, (_, end) in enumerate(self.offsets) if end > char), len(self.ids))


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Right-padded texts with explicit positions.

    Attributes:
        input_ids: (batch × seq) int64.
        attention_mask: (batch × seq) int64, 1 on real tokens.
        position_ids: (batch × seq) int64, counted from each text's first token.
        lengths: (batch) number of real tokens.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    lengths: torch.Tensor

    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments for the model's forward."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
        }


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoding]:
    """Tokenize whole strings, with the special tokens that the tokenizer adds by default (some put a BOS first)."""
    if not texts:
        return []
    out = tokenizer(list(texts), return_offsets_mapping=True, padding=False, truncation=False)
    return [
        Encoding(text=text, ids=tuple(ids), offsets=tuple((int(a), int(b)) for a, b in offsets))
        for text, ids, offsets in zip(texts, out["input_ids"], out["offset_mapping"], strict=True)
    ]


def pad(rows: Sequence[Sequence[int]], *, pad_id: int, device: torch.device) -> TokenBatch:
    """Right-pad rows of ids to the longest."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    columns = torch.arange(width)
    mask = (columns[None] < lengths[:, None]).long()
    positions = columns[None].expand_as(ids).clamp(max=(lengths - 1).clamp(min=0)[:, None])
    return TokenBatch(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=positions.to(device),
        lengths=lengths.to(device),
    )


def subject_range(encoding: Encoding, start: int, subject: str) -> tuple[int, int]:
    """Tokens [b, e) that overlap the characters of `subject`, which begins at character `start` of the text.

    Space around the subject does not count as part of it (docs/method.md §3.4). A character spread over several
    tokens, and a token that runs on into what follows the subject, belong to it whole.

    Raises:
        RecordError: the subject is empty or has no token of its own.
    """
    start, end = start + len(subject) - len(subject.lstrip()), start + len(subject.rstrip())
    inside = [i for i, (a, b) in enumerate(encoding.offsets) if a < end and b > start and b > a]
    if not subject.strip() or not inside:
        raise RecordError(f"subject {subject!r} has no tokens in {encoding.text!r}", field="subject")
    return inside[0], inside[-1] + 1


def find_subject(text: str, subject: str) -> int:
    """Character offset of the first occurrence of `subject`.

    Raises:
        RecordError: it does not occur, or is empty.
    """
    start = text.find(subject) if subject.strip() else -1
    if start < 0:
        raise RecordError(f"subject {subject!r} does not occur in {text!r}", field="subject")
    return start


def lookup_index(encoding: Encoding, template: str, subject: str, *, fact_token: FactToken, prompt_end: int) -> int:
    """Token position that `fact_token` names (docs/method.md §3.4) in `template` with `subject` at its `{}`.

    Args:
        prompt_end: character length of the prompt itself; text after it (a forced target) is not looked at,
            so that `last` is the prompt's last token, not padding and not a target token (the reference's fault).

    Raises:
        RecordError: the subject has no tokens.
    """
    first, end = subject_range(encoding, template.index("{}"), subject)
    last_of_prompt = max(i for i, (a, b) in enumerate(encoding.offsets) if b > a and a < prompt_end)
    match fact_token:
        case "subject_first":
            return first
        case "subject_last":
            return end - 1
        case "subject_first_after_last":
            return min(end, last_of_prompt)
        case "last":
            return last_of_prompt
