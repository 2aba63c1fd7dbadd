"""Tokenizes texts and finds the tokens of a subject, by character offsets in the whole text (docs/method.md §0).

No other module calls the tokenizer for a text, so that everything that is edited, scored, traced, sampled or measured
has the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from romexp.errors import RecordError
from romexp.lm.added_tokens import PROBE, is_added_mark, mark_ids, special_counts

FactToken = Literal["subject_first", "subject_last", "subject_first_after_last", "last"]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """A tokenized text.

    Attributes:
        ids: token ids.
        offsets: the character range [start, end) of each token.
        special: number of special tokens before the text.
    """

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    special: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def first_token_after(self, char: int) -> int:
        """Index of the first token that ends after character offset `char`, or the number of tokens if none does."""
        return next((i for i, (_, end) in enumerate(self.offsets) if end > char), len(self.ids))


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Right-padded texts with explicit positions.

    Attributes:
        input_ids: (batch × tokens) int64.
        attention_mask: (batch × tokens) int64, 1 for tokens of the text, 0 for padding.
        position_ids: (batch × tokens) int64, counted from each text's first token.
        lengths: number of tokens of each text without padding (batch).
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    lengths: torch.Tensor

    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments for the model's forward method."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
        }


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoding]:
    """Tokenize whole strings.

    The special tokens that the tokenizer puts before a text, such as a BOS token, are part of the result. Those that it
    puts after a text (end of text, separators) are not: they are no text, and nothing may be read or changed at them.

    A tokenizer may put a word mark before a text, which may become a token of its own. That token stands for no
    character, so its range of characters is empty, like that of a special token.
    """
    if not texts:
        return []
    out = tokenizer(
        [*texts, PROBE],
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        padding=False,
        truncation=False,
        verbose=False,
    )
    before, after = special_counts(out["special_tokens_mask"][-1])
    marks = mark_ids(tokenizer)
    encodings = []
    for text, ids, offsets in zip(texts, out["input_ids"], out["offset_mapping"]):
        ranges = [(int(a), int(b)) for a, b in offsets]
        if not marks.isdisjoint(ids):
            ranges = [(a, a if i in marks and is_added_mark(text[a:b]) else b) for i, (a, b) in zip(ids, ranges)]
        end = len(ids) - after
        encodings.append(Encoding(text=text, ids=tuple(ids[:end]), offsets=tuple(ranges[:end]), special=before))
    return encodings


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int) -> list[list[int]]:
    """The first `max_tokens` tokens of each text, as `encode` gives them."""
    if not texts:
        return []
    out = tokenizer(
        [*texts, PROBE],
        return_special_tokens_mask=True,
        return_attention_mask=False,
        padding=False,
        truncation=False,
        verbose=False,
    )
    _, after = special_counts(out["special_tokens_mask"][-1])
    return [ids[: min(len(ids) - after, max_tokens)] for ids in out["input_ids"][:-1]]


def bare_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a text without any special token."""
    out = tokenizer(text, add_special_tokens=False, padding=False, truncation=False, verbose=False)
    ids: list[int] = out["input_ids"]
    return ids


def pad(rows: Sequence[Sequence[int]], *, pad_id: int, device: torch.device) -> TokenBatch:
    """Right-pad rows of token ids to the length of the longest."""
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
    """The tokens [b, e) that overlap the characters of `subject`, which begins at character `start` of the text.

    White space around the subject does not count as part of it (docs/method.md §3.4). A token that overlaps the subject
    only in part belongs to it, and so do all tokens of a character that is split into several.

    Raises:
        RecordError: the subject is empty, or no token overlaps it.
    """
    start, end = start + len(subject) - len(subject.lstrip()), start + len(subject.rstrip())
    inside = [i for i, (a, b) in enumerate(encoding.offsets) if a < end and b > start and b > a]
    if not subject.strip() or not inside:
        raise RecordError(f"subject {subject!r} has no tokens in {encoding.text!r}", field="subject")
    return inside[0], inside[-1] + 1


def lookup_index(encoding: Encoding, template: str, subject: str, *, fact_token: FactToken, prompt_end: int) -> int:
    """The position of the token that `fact_token` names (docs/method.md §3.4).

    Args:
        encoding: the tokenized text: `template` with `subject` at its `{}`, and maybe a target after it.
        prompt_end: length of the prompt in characters. So `last` is the prompt's last token and never a token of the
            target, as it can be in the authors' code.

    Raises:
        RecordError: no token overlaps the subject.
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
