"""What a tokenizer adds to a text by itself: special tokens around it, a word mark before it (docs/method.md §0)."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

PROBE = "a"
"""A text of which only the special tokens around it are read: in an empty text they could not be told apart."""

WORD_MARKS = ("▁", "Ġ")
"""How SentencePiece and byte-level tokenizers write the space before a word."""


def special_counts(mask: Sequence[int]) -> tuple[int, int]:
    """The numbers of special tokens before and after a text, from its mask (1 for special tokens)."""
    before = next((i for i, special in enumerate(mask) if not special), len(mask))
    after = next((i for i, special in enumerate(reversed(mask[before:])) if not special), 0)
    return before, after


def special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the tokenizer puts before every text, and those that it puts after it."""
    out = tokenizer(PROBE, return_special_tokens_mask=True, padding=False, truncation=False, verbose=False)
    before, after = special_counts(out["special_tokens_mask"])
    ids = tuple(out["input_ids"])
    return ids[:before], ids[len(ids) - after :]


def adds_word_marks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a word mark before any text that it is given, as SentencePiece tokenizers do."""
    return "".join(tokenizer.tokenize(PROBE))[:1] in WORD_MARKS


def mark_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that are a word mark and nothing else."""
    known = (tokenizer.backend_tokenizer.token_to_id(mark) for mark in WORD_MARKS)
    return frozenset(token for token in known if token is not None)


def is_added_mark(characters: str) -> bool:
    """Whether a word mark with these characters of the text was added. If not, it stands for white space or itself."""
    return bool(characters.strip()) and characters not in WORD_MARKS
